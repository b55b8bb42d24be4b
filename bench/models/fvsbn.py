"""FVSBN, the belief network without hidden units: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py, a single layer here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import FVSBN

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import masked_works

SIZES = ((64, 8), (256, 784))


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in SIZES[:1] if setting.quick else SIZES:
        model = FVSBN(features, device=setting.device)
        x = torch.randint(2, (batch, features), device=setting.device).to(torch.get_default_dtype())
        yield from beside_pytorch(model, x, f"{batch} x {features}", masked_works(model, batch), setting)
