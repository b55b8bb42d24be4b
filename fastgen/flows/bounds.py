"""Bounded data to unbounded data."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import _check
from ..reference.accumulate import accumulator
from ..reference.activations import softplus
from .box import Bound, Box
from .transform import Transform


class Bounds(Transform):
    """Data in low < x < high, feature by feature, to all real numbers.

    | bounds | z |
    |---|---|
    | both | log((x - low) / (high - x)) |
    | low | log(e^(x - low) - 1), the inverse of softplus |
    | high | -log(e^(high - x) - 1) |
    | none | x |

    A row with a value on or outside a bound has log_det -inf, and so the log-density -inf; its z is finite, and so are the
    gradients of all other rows. The inverse lands inside the bounds, on the last numbers before them where rounding would
    reach them.

    Args:
        low, high: a number for each feature, or one for all; None, alone or among them, is no bound.
        features: D; None: as many as `low` or `high` has.

    Raises:
        ValueError: another number of bounds than features, or low >= high.
    """

    between: Tensor
    above: Tensor
    below: Tensor

    def __init__(self, low: Bound, high: Bound, features: int | None = None) -> None:
        super().__init__()
        self.box = Box(low, high, features)
        has_low, has_high = self.box.low.isfinite(), self.box.high.isfinite()
        for name, chosen in (("between", has_low & has_high), ("above", has_low & ~has_high), ("below", ~has_low & has_high)):
            self.register_buffer(name, chosen.nonzero().flatten(), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return self.box.config

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.floating(x, "x")
        _check.features(x, "x", self.box.features)
        z, total = self._by_columns(x, inverse=False)
        return z.to(x.dtype), total if log_det is None else log_det + total

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.floating(z, "z")
        _check.features(z, "z", self.box.features)
        x, total = self._by_columns(z, inverse=True)
        first, last = (bound.to(z.dtype) for bound in _inside(self.box))
        return x.to(z.dtype).clamp(first, last), total if log_det is None else log_det + total

    def _by_columns(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The features of each kind through their own formula; those without bounds as they are."""
        y = x.to(accumulator(x.dtype))
        total = y.new_zeros(y.shape[:-1])
        low, high = self.box.low.to(y.dtype), self.box.high.to(y.dtype)
        for columns, formulas in ((self.between, _BETWEEN), (self.above, _ABOVE), (self.below, _BELOW)):
            if len(columns):
                value, own = formulas[inverse](y[..., columns], low[columns], high[columns])
                y = y.index_copy(-1, columns, value)
                total = total + own.sum(-1)
        return y, total


def _logit(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    half = (high - low) / 2
    # Both lie in (0, 2) and sum to 2, so that neither logarithm loses digits in the middle or at the edges.
    a, b = (x - low) / half, (high - x) / half
    outside = (a <= 0) | (b <= 0)
    log_a, log_b = (torch.where(outside, 1.0, t).log() for t in (a, b))
    return log_a - log_b, torch.where(outside, -math.inf, -(log_a + log_b + (half / 2).log()))


def _sigmoid(z: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    width = high - low
    x = torch.where(z < 0, low + width * z.sigmoid(), high - width * (-z).sigmoid())
    return x, width.log() + F.logsigmoid(z) + F.logsigmoid(-z)


def _softplus_inverse(distance: Tensor) -> tuple[Tensor, Tensor]:
    outside = (distance <= 0) | (distance == math.inf)
    d = torch.where(outside, 1.0, distance)
    log_slope = (-torch.expm1(-d)).log()
    return d + log_slope, torch.where(outside, -math.inf, -log_slope)


def _from_low(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return _softplus_inverse(x - low)


def _from_high(x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    z, log_det = _softplus_inverse(high - x)
    return -z, log_det


def _to_above(z: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return low + softplus(z), F.logsigmoid(z)


def _to_below(z: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return high - softplus(-z), F.logsigmoid(-z)


# Data to noise, noise to data.
_BETWEEN, _ABOVE, _BELOW = (_logit, _sigmoid), (_from_low, _to_above), (_from_high, _to_below)


def _inside(box: Box) -> tuple[Tensor, Tensor]:
    """The first and the last number inside, up to one: at a bound of 0 the smallest whose distance has all its digits."""
    low, high = box.low, box.high
    number = torch.finfo(low.dtype)
    scale = torch.where(box.low.isfinite() & box.high.isfinite(), (high - low) / 2, 1.0).clamp(min=1.0)

    def step(bound: Tensor) -> Tensor:
        return torch.where(bound.isfinite(), torch.maximum(bound.abs() * number.eps, number.tiny * scale), 0.0)

    return low + step(low), high - step(high)
