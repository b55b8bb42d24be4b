"""NICE on vectors: density, gradients and training step, beside plain PyTorch.

Work: that of the networks' matrix products, once forward and twice backward; see networks.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen import flows

from ..case import Case, Setting
from ..densities import beside_pytorch
from ..networks import dense_works

# Rows, features, hidden width, transforms.
SIZES = ((64, 8, 64, 4), (1024, 64, 256, 4))


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, hidden, transforms in SIZES[:1] if setting.quick else SIZES:
        widths = (hidden, hidden)
        model = flows.NICE(features, transforms=transforms, hidden_features=widths, device=setting.device)
        with torch.no_grad():
            for parameter in model.parameters():
                # Couplings start as the identity: here they do not.
                parameter.add_(0.01 * torch.randn_like(parameter))
        x = torch.randn(batch, features, device=setting.device)
        shape = f"{batch} x {features}, {transforms} x hidden {hidden} x 2"
        yield from beside_pytorch(model, x, shape, dense_works(model, batch, features), setting)
