"""How many rows: of samples, and of data that meet contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def sample_shape(n: int | Sequence[int]) -> tuple[int, ...]:
    """The axes of n samples: (n,), or n itself where it is a shape. Raises ValueError for negative numbers."""
    shape: tuple[int, ...] = (n,) if isinstance(n, int | torch.SymInt) else tuple(n)
    if any(size < 0 for size in shape):
        raise ValueError(f"n: expected at least 0 samples, found {n}")
    return shape


def draw(
    kind: Callable[..., Tensor],
    size: Sequence[int],
    generator: torch.Generator | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """`kind`, torch.rand or torch.randn, of a size."""
    # torch.export knows the call without a generator only.
    options = {} if generator is None else {"generator": generator}
    return kind(tuple(size), dtype=dtype, device=device, **options)


def match_context(x: Tensor, context: Tensor | None) -> Tensor:
    """x (..., D), repeated where a context (..., F) has more rows. Raises ValueError where the two do not broadcast."""
    if context is None or context.dim() < 2 or x.shape[:-1] == context.shape[:-1]:
        return x
    try:
        batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    except RuntimeError:
        found = f"{tuple(context.shape)} with x of {tuple(x.shape)}"
        raise ValueError(f"context: expected a batch that broadcasts with x's, found shape {found}") from None
    return x.expand(*batch, x.shape[-1])
