"""planar and planar_inverse against the loop over layers, the same compiled, and the two thin products in plain PyTorch.

Bytes forward: z read, z and one log_det per row written; backward z and both incoming gradients read, one gradient written.
Parameters of each row's own are read once forward, and read once and written once backward. The products of the shared form:
2 B D K forward multiplications, 4 B D K backward.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen import ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

OPERATION = "planar"

# What the operation was built to reach, at K = 16.
TARGETS = {
    "shared": {
        "forward": {"loop": 20.0, "compiled": 1.5},
        "forward+backward": {"loop": 12.0, "two products": 2.0},
    },
    "per row": {"forward+backward": {"loop": 4.0, "compiled": 1.0}},
}


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, layers in ((256, 64, 16),) if setting.quick else ((256, 64, 16), (65536, 64, 16)):
        moved = word() * batch * (2 * features + 1), word() * batch * (3 * features + 1)
        flops = 4 * batch * features * layers, 8 * batch * features * layers
        inputs = _inputs(setting, batch, features, layers, ())
        candidates = {OURS: ops.planar, "loop": loop, **compiled(loop, setting), "two products": two_products}
        works = Work(flops[0], moved[0]), Work(flops[1], moved[1])
        targets = TARGETS["shared"] if batch == 65536 else None
        shape = f"{batch} x {features}, {layers} layers"
        yield from passes(OPERATION, shape, candidates, loop, inputs, works, targets)
        inverse = {OURS: ops.planar_inverse, "PyTorch": reference.planar_inverse}
        yield from passes("planar_inverse", shape, inverse, reference.planar_inverse, inputs, works)
    for batch, features, layers in ((256, 32, 16),) if setting.quick else ((256, 32, 16), (4096, 32, 16)):
        parameters = batch * layers * (2 * features + 1)
        inputs = _inputs(setting, batch, features, layers, (batch,))
        candidates = {OURS: ops.planar, "loop": loop, **compiled(loop, setting)}
        works = (
            Work(0, word() * (batch * (2 * features + 1) + parameters)),
            Work(0, word() * (batch * (3 * features + 1) + 2 * parameters)),
        )
        targets = TARGETS["per row"] if batch == 4096 else None
        shape = f"{batch} x {features}, {layers} layers of each row's own"
        yield from passes(OPERATION, shape, candidates, loop, inputs, works, targets)


def _inputs(setting: Setting, batch: int, features: int, layers: int, lead: tuple[int, ...]) -> list[Tensor]:
    z = torch.randn(batch, features, device=setting.device)
    u, w = (0.3 * torch.randn(*lead, layers, features, device=setting.device) for _ in range(2))
    return leaves(z, u, w, torch.randn(*lead, layers, device=setting.device))


def _directions(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    along = (w * u).sum(-1)
    m = F.softplus(along) - 1
    return u + ((m - along) / w.square().sum(-1))[..., None] * w, m


def loop(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A planar flow as other libraries write it."""
    directions, m = _directions(u, w)
    total = torch.zeros_like(z[..., 0])
    for k in range(u.shape[-2]):
        a = z @ w[k] if w.dim() == 2 else (z * w[..., k, :]).sum(-1)
        h = (a + b[..., k]).tanh()
        total = total + torch.log1p((1 - h * h) * m[..., k])
        z = z + directions[..., k, :] * h[..., None]
    return z, total


def two_products(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Layers that all rows share as fastgen computes them, in PyTorch."""
    directions, m = _directions(u, w)
    sums, gram = z @ w.T + b, directions @ w.T
    outputs: list[Tensor] = []
    for k in range(len(u)):
        a = sums[:, k]
        if outputs:
            a = a + torch.stack(outputs, -1) @ gram[:k, k]
        outputs.append(a.tanh())
    h = torch.stack(outputs, -1)
    return z + h @ directions, torch.log1p((1 - h * h) * m).sum(-1)
