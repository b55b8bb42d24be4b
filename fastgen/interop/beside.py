"""A context that a network takes side by side with the features, as further columns of its first layer's weight."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .network import Call, Planned


class Beside(NamedTuple):
    """How the first layer's columns are shared; whether the context's come first, and whether their mask forbids some."""

    features: int
    context: int
    context_first: bool
    masked: bool

    @staticmethod
    def of(mask: Tensor, features: int, *, context_first: bool) -> Beside:
        split = Beside(features, mask.shape[1] - features, context_first, False)
        return split._replace(masked=not bool(split.columns(mask)[1].all()))

    def columns(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the features and those of the context, of t (..., in)."""
        if self.context_first:
            context, features = t.split((self.context, self.features), -1)
        else:
            features, context = t.split((self.features, self.context), -1)
        return features, context

    def call(self, planned: Planned, context: Tensor | None) -> Call | None:
        """What one call takes, given the context (..., C); None where the network takes none, or needs one."""
        if (context is None) != (self.context == 0) or (context is not None and context.shape[-1:] != (self.context,)):
            return None
        call = planned.call()
        if context is None:
            return call
        weight = call.params[0]
        assert weight is not None
        own, others = self.columns(weight)
        if self.masked and not planned.loose[0]:
            others = others * self.columns(planned.layers[0].mask)[1]
        return Call(planned, [own, *call.params[1:]], F.linear(context, others))
