"""radial and radial_inverse against the few lines of PyTorch that define them, and the same compiled.

Bytes forward: z read, z and one log_det per row written; backward z and both incoming gradients read, one gradient written.
There is no matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen import ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

OPERATION = "radial"


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, layers in ((256, 32, 16),) if setting.quick else ((256, 32, 16), (16384, 32, 16)):
        z, centre = torch.randn(batch, features, device=setting.device), torch.randn(layers, features, device=setting.device)
        log_alpha, raw_beta = (torch.randn(layers, device=setting.device) for _ in range(2))
        inputs = leaves(z, centre, log_alpha, raw_beta)
        work = Work(0, word() * batch * (2 * features + 1)), Work(0, word() * batch * (3 * features + 1))
        shape = f"{batch} x {features}, {layers} layers"
        for name in ("radial", "radial_inverse"):
            definition = getattr(reference, name)
            candidates = {OURS: getattr(ops, name), "PyTorch": definition, **compiled(definition, setting)}
            yield from passes(name, shape, candidates, definition, inputs, work)
