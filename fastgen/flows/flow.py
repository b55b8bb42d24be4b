"""Normalizing flows: a base distribution seen through a transform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Distribution, StandardNormal
from .transform import Transform


def sample_shape(n: int | Sequence[int]) -> tuple[int, ...]:
    """The axes of n samples: (n,), or n itself where it is a shape. Raises ValueError for negative numbers."""
    shape = (n,) if isinstance(n, int) else tuple(n)
    if any(size < 0 for size in shape):
        raise ValueError(f"n: expected at least 0 samples, found {n}")
    return shape


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


class Flow(nn.Module):
    """The distribution of x = transform.inverse(z), z drawn from `base`.

    log p(x) = log p_base(z) + log|det dz/dx| at z = transform(x) (Rezende & Mohamed 2015, equation 5).

    Attributes:
        base: the distribution of z.
        transform: data to noise, the whole composition.
    """

    def __init__(self, base: Distribution, transform: Transform) -> None:
        super().__init__()
        self.base = base
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of x (..., D) given context (..., F), their batches broadcast: (...) in nats.

        float64 for float64 data, else float32.
        """
        x = match_context(x, context)
        if isinstance(self.base, StandardNormal):
            return self.transform.normal_log_prob(x, context)
        z, log_det = self.transform(x, context)
        return self.base.log_prob(z) + log_det

    @torch.no_grad()
    def sample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """n samples, without gradients: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        generator: where the noise is drawn from, on the device of the flow; None: torch's own.
        """
        return self.rsample(n, context, generator=generator)

    def rsample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`sample` with gradients: of the samples with respect to parameters and context."""
        return self.transform.inverse(self._noise(n, context, generator), context)[0]

    def sample_and_log_prob(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`rsample` and the log-densities of its samples, (n,) or (n, C...), in nats, at the cost of sampling alone."""
        z = self._noise(n, context, generator)
        x, log_det = self.transform.inverse(z, context)
        return x, self.base.log_prob(z) - log_det

    def _noise(self, n: int | Sequence[int], context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        batch = () if context is None else context.shape[:-1]
        return self.base.sample((*sample_shape(n), *batch), generator=generator)
