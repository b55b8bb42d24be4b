"""Permutations of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops import _check
from .transform import Transform, spread_log_det


class Permutation(Transform):
    """z_i = x_order[i], with log_det 0.

    Args:
        order: a permutation of 0..D-1. It is a buffer, so that a checkpoint holds it.

    Raises:
        ValueError: `order` is not a permutation.
    """

    order: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        index = torch.as_tensor(order)
        if index.dim() != 1 or index.numel() == 0 or not torch.equal(index.sort().values.cpu(), torch.arange(len(index))):
            raise ValueError(f"order: expected a permutation of 0..D-1, found {index.tolist()}")
        self.register_buffer("order", index.to(torch.int64, copy=True))

    @classmethod
    def reverse(cls, features: int) -> Permutation:
        """The last feature first."""
        return cls(torch.arange(features).flip(0))

    @classmethod
    def random(cls, features: int, generator: torch.Generator | None = None) -> Permutation:
        """An order drawn from `generator`, or from torch's own."""
        return cls(torch.randperm(features, generator=generator))

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"order": self.order.tolist()}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(x, "x", len(self.order))
        return x[..., self.order], spread_log_det(0.0, x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(z, "z", len(self.order))
        return z[..., self.order.argsort()], spread_log_det(0.0, z, log_det)
