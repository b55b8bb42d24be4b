"""GaussianAutoregressive with linear conditionals: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py, a single layer here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import GaussianAutoregressive

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import masked_works

SIZES = ((64, 8), (1024, 64))


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in SIZES[:1] if setting.quick else SIZES:
        model = GaussianAutoregressive(features, device=setting.device)
        x = torch.randn(batch, features, device=setting.device)
        yield from beside_pytorch(model, x, f"{batch} x {features}", masked_works(model, batch), setting)
