"""Patterns of observed and missing features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def expand_observed(observed: Tensor, x: Tensor) -> Tensor:
    """Which features are observed, at the shape of x (..., D). Raises TypeError or ValueError unless bool and broadcastable."""
    if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
        found = observed.dtype if isinstance(observed, Tensor) else type(observed).__name__
        raise TypeError(f"observed: expected a bool tensor, found {found}")
    if observed.device != x.device:
        raise ValueError(f"observed: expected x's device {x.device}, found {observed.device}")
    if observed.dim() == 0 or observed.shape[-1] != x.shape[-1]:
        raise ValueError(f"observed: expected shape (..., {x.shape[-1]}), found {tuple(observed.shape)}")
    try:
        return observed.expand(x.shape)
    except RuntimeError:
        expected = f"a shape that broadcasts to x's {tuple(x.shape)}"
        raise ValueError(f"observed: expected {expected}, found {tuple(observed.shape)}") from None


def distinct_rows(values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each distinct row (k,) of `values` (n, k), on the CPU, with the indices of the rows that equal it, on their device."""
    if len(values) == 0:
        return
    distinct, which, counts = values.cpu().unique(dim=0, return_inverse=True, return_counts=True)
    groups = which.argsort(stable=True).split(counts.tolist())
    yield from ((row, indices.to(values.device)) for row, indices in zip(distinct, groups, strict=True))


def observed_first(degrees: Tensor, pattern: Tensor) -> Tensor:
    """An order in which the observed features of a pattern (D,) come first: both groups in the order of `degrees` (D,)."""
    return (degrees + len(degrees) * ~pattern).argsort().argsort() + 1
