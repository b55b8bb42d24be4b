"""IWAE: the importance-weighted bound, its gradients and a training step, beside plain PyTorch as users write it.

Work: that of the encoder's linear layers, and of the decoder's on every sample; see networks.py. Noise is given where
results are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastgen.models import IWAE

from ..autoencoders import Sizes, bounds
from ..case import Case, Setting

SIZES = (Sizes(64, 64, 32, 8, 5), Sizes(128, 784, 200, 50, 5))


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        options: dict[str, Any] = {"latent_features": sizes.latent, "hidden_features": (sizes.hidden,)}
        model = IWAE(sizes.features, samples=sizes.samples, **options, device=setting.device)
        yield from bounds(model, sizes, setting)
