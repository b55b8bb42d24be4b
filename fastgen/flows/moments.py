"""Mean and standard deviation of features in one pass over the rows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..ops import _check

# Rows taken to float64 at a time.
ROWS = 2**16


class Moments:
    """The mean, the deviation and the range of each feature of all rows seen, in float64.

    Chan et al. 1983, "Algorithms for Computing the Sample Variance: Analysis and Recommendations", equation 2.1.

    Attributes:
        count: how many rows.
        mean, deviation, low, high: (D,); the deviation is that of the rows themselves, divided by their number.
        like: of no rows, with the dtype and the device of the first.
    """

    mean: Tensor
    low: Tensor
    high: Tensor
    like: Tensor

    def __init__(self, chunks: Tensor | Iterable[Tensor]) -> None:
        """chunks: the rows (..., D), or parts of them, one after the other.

        Raises ValueError or TypeError for no rows, values that are not finite or floating, or chunks of different widths.
        """
        self.count = 0
        for chunk in [chunks] if isinstance(chunks, Tensor) else chunks:
            _check.floating(chunk, "x")
            _check.features(chunk, "x", len(self.mean) if self.count else None)
            for rows in chunk.detach().reshape(-1, chunk.shape[-1]).split(ROWS):
                self._merge(rows)
        if self.count == 0:
            raise ValueError("x: expected at least one row of finite values, found none")

    def _merge(self, rows: Tensor) -> None:
        n = len(rows)
        if n == 0:
            return
        if not rows.isfinite().all():
            raise ValueError("x: expected at least one row of finite values, found NaN or inf")
        low, high = (bound.double() for bound in rows.aminmax(dim=0))
        var, mean = torch.var_mean(rows.double(), 0, correction=0)
        if self.count == 0:
            self.like = rows[:0]
            self.count, self.mean, self._squares, self.low, self.high = n, mean, var * n, low, high
            return
        total = self.count + n
        difference = mean - self.mean
        self.mean = self.mean + difference * (n / total)
        self._squares = self._squares + var * n + difference.square() * (self.count * n / total)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.count = total

    @property
    def deviation(self) -> Tensor:
        return (self._squares / self.count).sqrt()
