"""affine_autoregressive against the few lines of PyTorch that define it.

Bytes forward: x, shift and log_scale read, z and one log_det per row written. Backward reads x, shift, log_scale and both
incoming gradients and writes three gradients. There is no matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastgen import ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

OPERATION = "affine_autoregressive"
SCALE_MAP = ops.ScaleMap("soft_clip", c=6.9)


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in ((256, 64),) if setting.quick else ((256, 64), (8192, 64), (32768, 128)):
        x, shift, log_scale = (torch.randn(batch, features, device=setting.device) for _ in range(3))
        # A network puts out shift and log_scale side by side: views of that are what the operation is given.
        inputs = leaves(x, torch.stack((shift, 0.3 * log_scale), -1))
        plain = _of_network(reference.affine_autoregressive)
        candidates = {OURS: _of_network(ops.affine_autoregressive), "PyTorch": plain, **compiled(plain, setting)}
        work = Work(0, word() * batch * (4 * features + 1)), Work(0, word() * batch * (7 * features + 1))
        yield from passes(OPERATION, f"{batch} x {features}", candidates, plain, inputs, work)


def _of_network(transform: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def run(x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return transform(x, params[..., 0], params[..., 1], scale_map=SCALE_MAP)

    return run
