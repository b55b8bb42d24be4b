"""Layers and networks: parameters for the operations of `fastgen.ops`, and what flows are conditioned by."""

from .foreign import network_of_masks
from .linear import MaskedLinear
from .made import MADE
from .mlp import MLP, ConvNet, ResidualMLP
from .networks import Joined

__all__ = ["MADE", "MLP", "ConvNet", "Joined", "MaskedLinear", "ResidualMLP", "network_of_masks"]
