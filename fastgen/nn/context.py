"""How a context enters a network: as one linear map of it, added to what the first layer gives."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import _check


def context_terms(linear: nn.Linear | None, context: Tensor | None) -> Tensor | None:
    """The context's part (..., H) of the first layer; `linear` is its map, None in a network without a context.

    Raises ValueError or TypeError for a context that is missing, not expected, of another width, dtype or device.
    """
    if context is None and linear is None:
        return None
    if context is None or linear is None or context.dim() == 0 or context.shape[-1] != linear.in_features:
        expected = f"shape (..., {linear.in_features})" if linear is not None else "None"
        raise ValueError(f"context: expected {expected}, found {None if context is None else tuple(context.shape)}")
    _check.floating(context, "context")
    if _check.autocast_dtype(context) is None:
        _check.like(context, "context", linear.weight, "the weight")
    return linear(context)
