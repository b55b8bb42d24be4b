"""The uniform distribution on a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops import _check
from ..reference.accumulate import accumulator
from .base import Distribution
from .batch import draw
from .box import Bound, Box


class Uniform(Distribution):
    """The uniform distribution on the box low <= z <= high; log_prob is -inf outside, and for rows with a NaN.

    Args:
        low, high: a number for each feature, or one for all.
        features: D; None: as many as `low` or `high` has.

    Raises:
        ValueError: another number of bounds than features, infinite ones, or low >= high.
    """

    features: int

    def __init__(
        self,
        low: Bound = 0.0,
        high: Bound = 1.0,
        features: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.box = Box(low, high, features, device=device, dtype=dtype)
        if not self.box.finite:
            raise ValueError(
                f"low, high: expected finite numbers, found {self.box.config['low']} and {self.box.config['high']}"
            )
        self.features = self.box.features

    @property
    def config(self) -> dict[str, Any]:
        return self.box.config

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        volume = (self.box.high - self.box.low).to(accumulator(z.dtype)).log().sum()
        return torch.where(self.box.contains(z), -volume, -math.inf)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        low, high = self.box.low, self.box.high
        uniform = draw(torch.rand, (*shape, self.features), generator, dtype=low.dtype, device=low.device)
        # Rounding could take a sample past the upper bound.
        return torch.minimum(low + (high - low) * uniform, high)
