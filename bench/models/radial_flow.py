"""RadialFlow: density, gradients and training step, beside the loop over layers in plain PyTorch.

Bytes: data read, one number per row written; backward the data and the incoming gradient read. There is
no matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastgen.flows import RadialFlow

from ..case import Case, Setting, Work
from ..densities import beside_pytorch
from ..networks import Works, optimiser_work
from ..precision import word

# Rows, features, layers.
SIZES = ((256, 8, 16), (4096, 64, 16))


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, layers in SIZES[:1] if setting.quick else SIZES:
        model = RadialFlow(features, transforms=layers, device=setting.device)
        x = torch.randn(batch, features, device=setting.device)
        moved = word() * batch * (features + 1)
        forward, backward = Work(0, moved), Work(0, moved)
        works = Works(forward, backward, forward + backward + optimiser_work(sum(p.numel() for p in model.parameters())))
        yield from beside_pytorch(model, x, f"{batch} x {features}, {layers} layers", works, setting)
