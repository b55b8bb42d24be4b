"""Normalizing flows: a base distribution seen through a transform."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .base import Distribution, StandardNormal
from .batch import match_context, sample_shape
from .bounds import Bounds
from .checks import at_least_one, check_context
from .elementwise import Logit, Standardise, UnitInterval
from .transform import Composed, Transform

# Transforms of data whose range is known, which come before a standardisation.
TO_REAL_NUMBERS = (Bounds, Logit, UnitInterval)


class Flow(nn.Module):
    """The distribution of x = transform.inverse(z), z drawn from `base`.

    log p(x) = log p_base(z) + log|det dz/dx| at z = transform(x) (Rezende & Mohamed 2015, equation 5).

    Attributes:
        base: the distribution of z.
        transform: data to noise, the whole composition.
        embedding: the network that transform and base see a context through, applied once per call; None: they see it as it is.
        standardise_context: what a context goes through before the embedding; None: nothing.
    """

    discrete = False

    def __init__(self, base: Distribution, transform: Transform, embedding: nn.Module | None = None) -> None:
        super().__init__()
        self.base = base
        self.transform = transform
        self.embedding = embedding
        self.standardise_context: Standardise | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of x (..., D) given context (..., F), their batches broadcast: (...) in nats.

        float64 for float64 data, else float32.
        """
        context = self.seen_context(context)
        x = match_context(x, context)
        if type(self.base) is StandardNormal:
            return self.transform.normal_log_prob(x, context)
        z, log_det = self.transform(x, context)
        return self.base.log_prob(z, context) + log_det

    @torch.no_grad()
    def sample(
        self,
        n: int | Sequence[int],
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """n samples, without gradients: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        generator: where the noise is drawn from, on the device of the flow; None: torch's own.
        batch_size: how many of n to draw at a time, so that what is held besides the samples stays small; None: all. Another
            number draws other samples. Raises ValueError for fewer than one.
        """
        context = self.seen_context(context)
        shape = sample_shape(n)
        if batch_size is None:
            return self._draw(shape, context, generator)
        at_least_one(batch_size=batch_size)
        count = math.prod(shape)
        pieces = [min(batch_size, count - done) for done in range(0, count, batch_size)] or [0]
        drawn = torch.cat([self._draw((piece,), context, generator) for piece in pieces])
        return drawn.view(*shape, *drawn.shape[1:])

    def _draw(self, shape: tuple[int, ...], context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        z = self.base.sample(_batch(shape, context), context, generator=generator)
        return self.transform.inverse(z, context)[0]

    def rsample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`sample` with gradients: of the samples with respect to parameters and context.

        Raises NotImplementedError where the base has no samples with gradients, as a mixture has none.
        """
        context = self.seen_context(context)
        z = self.base.rsample(_batch(n, context), context, generator=generator)
        return self.transform.inverse(z, context)[0]

    def sample_and_log_prob(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`rsample` and the log-densities of its samples, (n,) or (n, C...), in nats, at the cost of sampling alone.

        Where the base has no samples with gradients, neither result has any.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.base.reparameterised):
            context = self.seen_context(context)
            draw = self.base.rsample if self.base.reparameterised else self.base.sample
            z = draw(_batch(n, context), context, generator=generator)
            x, log_det = self.transform.inverse(z, context)
            return x, self.base.log_prob(z, context) - log_det

    def fit_standardisation(self, x: Tensor | Iterable[Tensor], context: Tensor | Iterable[Tensor] | None = None) -> None:
        """Makes the flow see data and contexts with mean 0 and standard deviation 1, feature by feature.

        The standardisation of x becomes the first transform, in place of a `Standardise` that is there already, so that
        log_prob stays that of the data as they are. Where the flow begins with transforms to all real numbers (`Bounds`,
        `Logit`, `UnitInterval`) it follows them, fitted to what they make of x. The context's comes before the embedding.
        Nothing else changes.

        Args:
            x: the data (..., D); or an iterable of tensors, the rows part by part, passed over once.
            context: the contexts (..., F), likewise; None leaves them as they are.

        Raises:
            ValueError, TypeError: what `Standardise.fit` raises, another number of features than the flow has, or values
                outside the bounds.
        """
        transforms = list(self.transform) if isinstance(self.transform, Composed) else [self.transform]
        first = list(itertools.takewhile(lambda t: isinstance(t, TO_REAL_NUMBERS), transforms))
        rest = transforms[len(first) :]
        features = Standardise.fit(_through(first, [x] if isinstance(x, Tensor) else x))
        if self.base.features not in (None, features.features):
            raise ValueError(f"x: expected {self.base.features} features, found {features.features}")
        contexts = None if context is None else Standardise.fit(context)
        like = placed_like(self, features.mean)
        self.transform = Composed([*first, features.to(like), *rest[bool(rest) and isinstance(rest[0], Standardise) :]])
        if contexts is not None:
            self.standardise_context = contexts.to(like)

    def seen_context(self, context: Tensor | None) -> Tensor | None:
        """What transform and base see of a context: standardised and embedded."""
        if self.standardise_context is not None:
            context, _ = self.standardise_context(check_context(context, self.standardise_context.features))
        if self.embedding is None:
            return context
        if context is None:
            raise ValueError("context: expected a tensor for the embedding, found None")
        return self.embedding(context)


@torch.no_grad()
def _through(transforms: Sequence[Transform], chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the transforms make of data, part by part, on their own device."""
    for chunk in chunks:
        z = chunk
        for transform in transforms:
            z, log_det = transform(z.to(placed_like(transform, z).device))
            if (log_det == -math.inf).any():
                raise ValueError(f"x: expected values inside the bounds of {type(transform).__name__}, found some outside")
        yield z


def placed_like(module: nn.Module, default: Tensor) -> Tensor:
    """A tensor with the device and the floating dtype of a module's parameters or buffers; the default without any."""
    numbers = itertools.chain(module.parameters(), module.buffers())
    return next((t for t in numbers if t.is_floating_point()), default)


def _batch(n: int | Sequence[int], context: Tensor | None) -> tuple[int, ...]:
    return (*sample_shape(n), *(() if context is None else context.shape[:-1]))
