"""nflows: masked linear layers, MADE and the affine autoregressive transform, in both directions."""

from __future__ import annotations

from nflows.transforms import autoregressive, made

from .linear import FastMaskedLinear
from .made import FastAffine, FastMADE, Parts


class MaskedLinear(FastMaskedLinear, made.MaskedLinear):
    covers = made.MaskedLinear


class MADE(FastMADE, made.MADE):
    covers = made.MADE
    parts = Parts((made.MaskedLinear, MaskedLinear), made.MaskedFeedforwardBlock, made.MaskedResidualBlock)
    activates_first = activates_context = True


class MaskedAffineAutoregressiveTransform(FastAffine, autoregressive.MaskedAffineAutoregressiveTransform):
    covers = autoregressive.MaskedAffineAutoregressiveTransform
    made = MADE


ACCELERATED = (MaskedLinear, MADE, MaskedAffineAutoregressiveTransform)
