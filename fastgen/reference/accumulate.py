"""Sums over features, in the dtype that results are returned in."""

from __future__ import annotations

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of log-determinants and log-densities: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulate(x: Tensor) -> Tensor:
    """The sum over the last axis in the accumulator's dtype."""
    return x.to(accumulator(x.dtype)).sum(-1)
