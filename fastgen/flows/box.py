"""A box: a lower and an upper bound for each feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# A number for each feature, or one for all of them; None is no bound.
Bound = float | None | Sequence[float | None] | Tensor


class Box(nn.Module):
    """low <= x <= high, feature by feature; a bound may be infinite.

    Args:
        low, high: a number for each feature, or one for all; None, alone or among them, is no bound.
        features: D; None: as many as `low` or `high` has.

    Attributes:
        low, high: (D,), in the module's dtype: rounded anew from the numbers given whenever it changes.

    Raises:
        ValueError: another number of bounds than features, or low >= high.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        low: Bound,
        high: Bound,
        features: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        lows, highs = _numbers(low, -math.inf), _numbers(high, math.inf)
        self.features = max(len(lows), len(highs)) if features is None else features
        self._low, self._high = _spread(lows, "low", self.features), _spread(highs, "high", self.features)
        for i, (a, b) in enumerate(zip(self._low, self._high, strict=True)):
            if not a < b or a == math.inf or b == -math.inf:
                raise ValueError(f"low: expected less than high for feature {i}, found {a} and {b}")
        for name, numbers in (("low", self._low), ("high", self._high)):
            self.register_buffer(name, torch.tensor(numbers, device=device, dtype=dtype or torch.get_default_dtype()), False)

    @property
    def config(self) -> dict[str, Any]:
        """low and high as lists of numbers; None, as JSON lacks infinity, is no bound."""
        lows, highs = ([b if math.isfinite(b) else None for b in bounds] for bounds in (self._low, self._high))
        return {"low": lows, "high": highs}

    @property
    def finite(self) -> bool:
        """Whether every feature has both bounds."""
        return all(map(math.isfinite, (*self._low, *self._high)))

    def contains(self, x: Tensor) -> Tensor:
        """Which rows of x (..., D) lie in the box: bool (...). Rows with a NaN do not."""
        return ((x >= self.low) & (x <= self.high)).all(-1)

    def _apply(self, fn: Callable, recurse: bool = True) -> Box:
        super()._apply(fn, recurse)
        for name, numbers in (("low", self._low), ("high", self._high)):
            setattr(self, name, torch.tensor(numbers, dtype=torch.float64).to(getattr(self, name)))
        return self

    def extra_repr(self) -> str:
        return f"low={list(self._low)}, high={list(self._high)}"


def _numbers(bound: Bound, missing: float) -> tuple[float, ...]:
    values: Any = bound.tolist() if isinstance(bound, Tensor) else bound
    return tuple(missing if v is None else float(v) for v in (values if isinstance(values, Sequence) else [values]))


def _spread(numbers: tuple[float, ...], name: str, features: int) -> tuple[float, ...]:
    if len(numbers) not in (1, features):
        raise ValueError(f"{name}: expected a number or {features} of them, found {len(numbers)}")
    return numbers * features if len(numbers) == 1 else numbers
