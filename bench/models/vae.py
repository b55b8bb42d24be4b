"""VAE: the evidence lower bound, its gradients and a training step, beside plain PyTorch as users write it.

Work: that of the encoder's and the decoder's linear layers; see networks.py. Noise is given where results are checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastgen.models import VAE

from ..autoencoders import Sizes, bounds
from ..case import Case, Setting
from ..steps import STEP

SIZES = (Sizes(64, 64, 32, 8), Sizes(512, 784, 400, 20))
# No slower than either.
TARGETS = {STEP: {"PyTorch": 1.0, "compiled": 1.0}}


def cases(setting: Setting) -> Iterator[Case]:
    for sizes in SIZES[:1] if setting.quick else SIZES:
        hidden = (sizes.hidden,)
        model = VAE(sizes.features, latent_features=sizes.latent, hidden_features=hidden, device=setting.device)
        yield from bounds(model, sizes, setting, TARGETS if sizes.features == 784 else None)
