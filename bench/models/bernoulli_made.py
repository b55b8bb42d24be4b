"""BernoulliMADE of binary data: density, gradients and training step, beside plain PyTorch with W * M.

Work: that of its network, see networks.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.models import BernoulliMADE

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import Sizes, masked_works

SIZES = (Sizes(64, 8, 64, 1), Sizes(256, 112, 500, 1))


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        hidden = (sizes.hidden, sizes.hidden)
        model = BernoulliMADE(sizes.features, hidden_features=hidden, device=setting.device)
        x = torch.randint(2, (sizes.batch, sizes.features), device=setting.device).to(torch.get_default_dtype())
        shape = str(sizes)
        yield from beside_pytorch(model, x, shape, masked_works(model, sizes.batch), setting)
