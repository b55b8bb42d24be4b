"""How fast a cost grows with a size: the exponent of a power law, by least squares on logarithms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# A power law holds where no point is further from it than this, relatively.
TOLERANCE = 0.1
_FEWEST = 3


class Fit(NamedTuple):
    """cost = factor * size ** exponent for sizes from `low` to `high`.

    error: the standard error of the exponent.
    deviation: how far the worst point is from the law, relatively.
    """

    exponent: float
    error: float
    factor: float
    low: int
    high: int
    deviation: float


def fit(costs: Mapping[int, float]) -> Fit | None:
    """The law of the largest sizes that keep to one: the smallest sizes, which overheads rule, go first.

    What is left, three sizes at least, may be further from a law than TOLERANCE; `deviation` says so. None for fewer than three
    sizes.
    """
    sizes = sorted(costs)
    found = None
    while len(sizes) >= _FEWEST:
        found = _least_squares(sizes, [costs[size] for size in sizes])
        if found.deviation <= TOLERANCE:
            break
        sizes = sizes[1:]
    return found


def _least_squares(sizes: list[int], costs: list[float]) -> Fit:
    x, y = np.log(sizes), np.log(costs)
    spread = float(((x - x.mean()) ** 2).sum())
    exponent = float(((x - x.mean()) * y).sum()) / spread
    level = float(y.mean() - exponent * x.mean())
    residuals = y - (level + exponent * x)
    error = math.sqrt(float((residuals**2).sum()) / (len(sizes) - 2) / spread)
    return Fit(exponent, error, math.exp(level), sizes[0], sizes[-1], float(np.expm1(np.abs(residuals).max())))
