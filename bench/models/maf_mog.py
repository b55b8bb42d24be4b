"""MAFMoG, ten Gaussians in each conditional of its base: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py; the base's is one network more.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import MAFMoG

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import Sizes, masked_works

COMPONENTS = 10
SIZES = (Sizes(64, 8, 64), Sizes(256, 64, 512))


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        hidden = (sizes.hidden, sizes.hidden)
        model = MAFMoG(
            sizes.features, components=COMPONENTS, transforms=sizes.transforms, hidden_features=hidden, device=setting.device
        )
        x = torch.randn(sizes.batch, sizes.features, device=setting.device)
        shape = f"{sizes}, {COMPONENTS} components"
        yield from beside_pytorch(model, x, shape, masked_works(model, sizes.batch), setting)
