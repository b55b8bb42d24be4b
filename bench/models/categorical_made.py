"""CategoricalMADE of 17 grey levels: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py; the columns of a feature are its one-hot categories.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import CategoricalMADE

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import Sizes, masked_works

CATEGORIES = 17
SIZES = (Sizes(64, 8, 64, 1), Sizes(256, 64, 500, 1))


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        hidden = (sizes.hidden, sizes.hidden)
        model = CategoricalMADE(sizes.features, categories=CATEGORIES, hidden_features=hidden, device=setting.device)
        x = torch.randint(CATEGORIES, (sizes.batch, sizes.features), device=setting.device)
        shape = f"{sizes}, {CATEGORIES} categories"
        yield from beside_pytorch(model, x, shape, masked_works(model, sizes.batch), setting)
