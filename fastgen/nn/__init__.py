"""Masked layers and networks: parameters for the operations of `fastgen.ops`."""

from .linear import MaskedLinear
from .made import MADE

__all__ = ["MADE", "MaskedLinear"]
