"""nflows.nn.nde: the masked layers and networks that nflows has twice."""

from __future__ import annotations

from nflows.nn.nde import made

from .linear import FastMaskedLinear
from .made import FastMADE, Parts


class MaskedLinear(FastMaskedLinear, made.MaskedLinear):
    covers = made.MaskedLinear


PARTS = Parts((made.MaskedLinear, MaskedLinear), made.MaskedFeedforwardBlock, made.MaskedResidualBlock)


class MADE(FastMADE, made.MADE):
    covers = made.MADE
    parts = PARTS
    activates_first = activates_context = False


class MixtureOfGaussiansMADE(FastMADE, made.MixtureOfGaussiansMADE):
    covers = made.MixtureOfGaussiansMADE
    parts = PARTS
    activates_first = activates_context = False


ACCELERATED = (MaskedLinear, MADE, MixtureOfGaussiansMADE)
