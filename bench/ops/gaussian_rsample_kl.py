"""gaussian_rsample_kl against the few lines of PyTorch it stands for, with torch's own normals, eager and compiled.

Bytes forward: mean and log_var read, z and one divergence per row written. Backward reads the two and both incoming gradients
and writes two gradients; noise is made and never stored. There is no matrix product. z has other noise than PyTorch's, so
results are checked against the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastgen import ops, reference
from fastgen.reference.philox import philox_normal

from ..case import OURS, Case, Setting, Work, both_modes, leaves

OPERATION = "gaussian_rsample_kl"
TARGETS = {
    (16384, 256): {"forward": {"PyTorch": 6.0}, "forward+backward": {"PyTorch": 6.0}},
    (65536, 256): {
        "forward": {"PyTorch": 5.0, "compiled": 5.0},
        "forward+backward": {"PyTorch": 4.0, "compiled": 4.0},
    },
}


def plain(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
    return z, 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def cases(setting: Setting) -> Iterator[Case]:
    seed = torch.tensor(7, device=setting.device)
    for batch, features in ((256, 64),) if setting.quick else ((256, 64), (16384, 256), (65536, 256)):
        inputs = leaves(*(torch.randn(batch, features, device=setting.device) for _ in range(2)))
        candidates = {
            OURS: lambda mean, log_var: ops.gaussian_rsample_kl(mean, log_var, seed=seed),
            "PyTorch": plain,
            "compiled": torch.compile(plain),
        }
        work = Work(0, 4 * batch * (3 * features + 1)), Work(0, 4 * batch * (5 * features + 1))
        targets = TARGETS.get((batch, features))
        # In float64 the noise is rounded elsewhere: the truth is of float32's.
        yield from both_modes(OPERATION, f"{batch} x {features}", candidates, definition(seed), inputs, work, targets)


def definition(seed: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The reference, with the noise of float32 whatever the inputs are."""

    def run(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        noise = philox_normal(tuple(mean.shape), seed, torch.float32).to(mean.dtype)
        _, kl = reference.gaussian_rsample_kl(mean, log_var, seed=seed)
        return mean + (0.5 * log_var).exp() * noise, kl

    return run
