"""Images as rows, and rows as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..ops import _check
from .transform import Transform, spread_log_det


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as a tuple. Raises ValueError unless these are three numbers of at least 1."""
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise ValueError(f"shape: expected (C, H, W) of at least 1 each, found {tuple(shape)}")
    channels, height, width = shape
    return channels, height, width


class Unflatten(Transform):
    """Rows (..., D) to images (..., C, H, W), D = C H W; log_det is 0.

    Raises ValueError unless `shape` has three numbers of at least 1.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = image_shape(shape)
        self.features = math.prod(self.shape)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"shape": list(self.shape)}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (..., D) -> (..., C, H, W)."""
        _check.features(x, "x", self.features)
        return x.unflatten(-1, self.shape), spread_log_det(0.0, x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (..., C, H, W) -> (..., D)."""
        if z.shape[-3:] != self.shape:
            raise ValueError(f"z: expected shape (..., {', '.join(map(str, self.shape))}), found {tuple(z.shape)}")
        rows = z.flatten(-3)
        return rows, spread_log_det(0.0, rows, log_det)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"
