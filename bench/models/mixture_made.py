"""MixtureMADE, ten Gaussians in each conditional: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py; the mixtures have no matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import MixtureMADE

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import Sizes, masked_works

COMPONENTS = 10
SIZES = (Sizes(64, 8, 64, 1), Sizes(256, 64, 512, 1))


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        hidden = (sizes.hidden, sizes.hidden)
        model = MixtureMADE(sizes.features, components=COMPONENTS, hidden_features=hidden, device=setting.device)
        x = torch.randn(sizes.batch, sizes.features, device=setting.device)
        shape = f"{sizes}, {COMPONENTS} components"
        yield from beside_pytorch(model, x, shape, masked_works(model, sizes.batch), setting)
