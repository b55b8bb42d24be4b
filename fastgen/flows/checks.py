"""Checks of arguments that flows and their bases share."""

from __future__ import annotations

import torch
from torch import Tensor

from ..nn.checks import check_counts


def at_least_one(**counts: int) -> None:
    """Raises ValueError, naming the first of them that is less than 1."""
    check_counts(1, **counts)


def check_context(context: Tensor | None, features: int) -> Tensor:
    """The context. Raises ValueError unless there is one of shape (..., features)."""
    if context is None or context.dim() == 0 or context.shape[-1] != features:
        found = None if context is None else tuple(context.shape)
        raise ValueError(f"context: expected shape (..., {features}), found {found}")
    return context


def refuse_export(what: str, expected: str) -> None:
    """Raises RuntimeError where torch.export is tracing."""
    exporting = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    if exporting is not None and exporting():
        raise RuntimeError(f"{what}: expected {expected} for torch.export")
