"""The least work of masked networks: what whole models are counted as.

Each network that of its layers, see ops/masked_mlp. A training step also reads weights, gradients and Adam's two moments and
writes weights and moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from fastgen.nn import MADE
from fastgen.ops import MaskedNetwork

from .case import Work
from .ops import masked_mlp
from .precision import word


class Sizes(NamedTuple):
    """Of a flow: the rows of a batch, features, the width of two hidden layers, and how many transforms."""

    batch: int
    features: int
    hidden: int
    transforms: int = 5

    def __str__(self) -> str:
        return f"{self.batch} x {self.features}, {self.transforms} x hidden {self.hidden} x 2"


class Works(NamedTuple):
    """Of a pass forward, of one back, and of a training step."""

    forward: Work
    backward: Work
    step: Work


def masked_works(model: nn.Module, batch: int) -> Works:
    """Of the MADEs in a model, each evaluated once."""
    networks = [module.network for module in model.modules() if isinstance(module, MADE)]
    return works_of(networks, batch, sum(p.numel() for p in model.parameters()))


def works_of(networks: Sequence[MaskedNetwork], batch: int, parameters: int) -> Works:
    passes = [masked_mlp.work(network, batch) for network in networks]
    forward, backward = (sum(each, Work(0, 0)) for each in zip(*passes, strict=True))
    return Works(forward, backward, forward + backward + optimiser_work(parameters))


def dense_works(model: nn.Module, rows: int, ends: int) -> Works:
    """Of the linear layers in a model on `rows` rows each, `ends` numbers of a row going in or out.

    The gradient of the data is not among what is asked for, but counted: it is one product of many.
    """
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    parameters = sum(p.numel() for p in model.parameters())
    moved = word() * rows * ends
    forward = Work(2 * rows * weights, word() * parameters + moved)
    backward = Work(4 * rows * weights, 2 * word() * parameters + moved)
    return Works(forward, backward, forward + backward + optimiser_work(parameters))


def optimiser_work(parameters: int) -> Work:
    """A step of Adam: weights, gradients and two moments read, weights and moments written."""
    return Work(0, 7 * word() * parameters)
