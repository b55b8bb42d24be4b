"""Masked layers and networks: parameters for the operations of `fastgen.ops`."""

from .foreign import network_of_masks
from .linear import MaskedLinear
from .made import MADE

__all__ = ["MADE", "MaskedLinear", "network_of_masks"]
