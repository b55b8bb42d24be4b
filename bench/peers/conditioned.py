"""Flows of other libraries whose every network reads a context: densities given x, as simulation-based inference has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from fastgen.ops import MaskedNetwork


class ConditionedPeer(NamedTuple):
    """
    networks: the descriptions of its masked networks, without the layers of the context.
    log_prob: of the model, data and a context for each row.
    inverse: of the model, noise and a context for each row, the data.
    sample: of the model, a number and one context (1, F), that many samples.
    """

    model: nn.Module
    networks: Sequence[MaskedNetwork]
    log_prob: Callable[[Any, Tensor, Tensor], Tensor]
    inverse: Callable[[Any, Tensor, Tensor], Tensor]
    sample: Callable[[Any, int, Tensor], object]
