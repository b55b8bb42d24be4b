"""gaussian_log_prob against the few lines of PyTorch that define it.

Bytes forward: x, mean and log_scale read, one number per row written. Backward reads the three and the incoming gradient
and writes three gradients. There is no matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen import ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

OPERATION = "gaussian_log_prob"


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in ((256, 64),) if setting.quick else ((256, 64), (8192, 64), (32768, 128)):
        x, mean, log_scale = (torch.randn(batch, features, device=setting.device) for _ in range(3))
        plain = reference.gaussian_log_prob
        candidates = {OURS: ops.gaussian_log_prob, "PyTorch": plain, **compiled(plain, setting)}
        work = Work(0, word() * batch * (3 * features + 1)), Work(0, word() * batch * (6 * features + 1))
        inputs = leaves(x, mean, 0.3 * log_scale)
        yield from passes(OPERATION, f"{batch} x {features}", candidates, plain, inputs, work)
