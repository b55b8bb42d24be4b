"""Normalizing flows: a base distribution seen through a transform."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.pretrained import Pretrained
from .base import Distribution, StandardNormal
from .batch import match_context, sample_shape
from .bounds import Bounds
from .checks import at_least_one, check_context
from .elementwise import Dequantize, Logit, Standardise, UnitInterval
from .embedding import build_embedding, describe_embedding
from .labels import ClassEmbedding
from .latent import arc, line
from .registry import describe_base, described_base
from .transform import Composed, Transform, build_transform, describe_transform

# Transforms of data whose range is known, which come before a standardisation.
TO_REAL_NUMBERS = (Bounds, Dequantize, Logit, UnitInterval)


class Flow(Pretrained):
    """The distribution of x = transform.inverse(z), z drawn from `base`.

    log p(x) = log p_base(z) + log|det dz/dx| at z = transform(x) (Rezende & Mohamed 2015, equation 5). Base, transform and
    embedding may be given as the descriptions that `config` holds.

    Args:
        standardise_context: the keyword arguments of the context's `Standardise`; None for none.
        device, dtype: where all parts go; None: where they are.

    Attributes:
        base: the distribution of z.
        transform: data to noise, the whole composition.
        embedding: the network that transform and base see a context through, applied once per call; None: they see it as it is.
        standardise_context: what a context goes through before the embedding; None: nothing.
        config: keyword arguments, as JSON knows them, that build the same flow again; its state_dict holds all numbers.
            Raises TypeError where a part is of one's own.
        shape: (C, H, W) of images, whose rows base and transform see flat; None: the data are rows themselves.
    """

    discrete = False
    shape: tuple[int, int, int] | None = None

    def __init__(
        self,
        base: Distribution | Mapping[str, Any],
        transform: Transform | Mapping[str, Any],
        embedding: nn.Module | Mapping[str, Any] | None = None,
        *,
        standardise_context: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.base = base if isinstance(base, Distribution) else described_base(base, device=device, dtype=dtype)
        self.transform = build_transform(transform, device=device, dtype=dtype)
        self.embedding = build_embedding(embedding, 1)
        self.standardise_context = None if standardise_context is None else Standardise(**standardise_context)
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    @property
    def config(self) -> dict[str, Any]:
        seen = self.standardise_context
        return {
            "base": describe_base(self.base),
            "transform": describe_transform(self.transform),
            "embedding": describe_embedding(self.embedding),
            "standardise_context": None if seen is None else seen.config,
        }

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules (DistributedDataParallel) reach it."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of x (..., D) given context (..., F), their batches broadcast: (...) in nats.

        Of images (..., C, H, W) where the flow is of images. float64 for float64 data, else float32.
        """
        context = self.seen_context(context)
        x = match_context(self._rows(x), context)
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
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """n samples, without gradients: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        Images have (C, H, W) in place of D.

        temperature: what the distance of the noise from the base's centre is multiplied by: below 1 samples are likelier and
            less varied (Kingma & Dhariwal 2018). Raises ValueError below 0, and other than 1 with a base without a centre.
        generator: where the noise is drawn from, on the device of the flow; None: torch's own.
        batch_size: how many of n to draw at a time, so that what is held besides the samples stays small; None: all. Another
            number draws other samples. Raises ValueError for fewer than one.
        """
        context = self.seen_context(context)
        shape = sample_shape(n)
        centre = None if temperature == 1 else self._centre(temperature, context)

        def draw(shape: tuple[int, ...]) -> Tensor:
            z = self.base.sample(_batch(shape, context), context, generator=generator)
            if centre is not None:
                z = centre + temperature * (z - centre)
            return self._events(self.transform.inverse(z, context)[0])

        if batch_size is None:
            return draw(shape)
        at_least_one(batch_size=batch_size)
        count = math.prod(shape)
        pieces = [min(batch_size, count - done) for done in range(0, count, batch_size)] or [0]
        drawn = torch.cat([draw((piece,)) for piece in pieces])
        return drawn.view(*shape, *drawn.shape[1:])

    def _centre(self, temperature: float, context: Tensor | None) -> Tensor | float:
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: expected a finite number of at least 0, found {temperature}")
        centre = self.base.centre(context)
        if centre is None:
            raise ValueError(f"temperature: expected 1 with the base {type(self.base).__name__}, found {temperature}")
        return centre

    def rsample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """`sample` with gradients: of the samples with respect to parameters and context.

        Raises NotImplementedError where the base has no samples with gradients, as a mixture has none.
        """
        context = self.seen_context(context)
        z = self.base.rsample(_batch(n, context), context, generator=generator)
        return self._events(self.transform.inverse(z, context)[0])

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
            return self._events(x), self.base.log_prob(z, context) - log_det

    @torch.no_grad()
    def interpolate(
        self, x0: Tensor, x1: Tensor, steps: int, context: Tensor | None = None, *, spherical: bool = False
    ) -> Tensor:
        """The way from data x0 to x1 (..., D) whose noise is the straight line: (steps, ..., D), ends included, no gradients.

        Images have (C, H, W) in place of D.

        Args:
            steps: at least 2.
            context: (..., F), the same for the whole way.
            spherical: the arc in place of the line: noise between is as far from zero as the ends are.

        Raises:
            ValueError: fewer than 2 steps, x0 and x1 that do not broadcast.
        """
        if steps < 2:
            raise ValueError(f"steps: expected at least 2, found {steps}")
        context = self.seen_context(context)
        ends = [self._rows(x) for x in (x0, x1)]
        try:
            torch.broadcast_shapes(*(x.shape for x in ends))
        except RuntimeError:
            raise ValueError(
                f"x1: expected a shape that broadcasts with x0's {tuple(x0.shape)}, found {tuple(x1.shape)}"
            ) from None
        start, end = (self.transform(match_context(x, context), context)[0] for x in ends)
        return self._events(self.transform.inverse((arc if spherical else line)(start, end, steps), context)[0])

    def fit_standardisation(self, x: Tensor | Iterable[Tensor], context: Tensor | Iterable[Tensor] | None = None) -> None:
        """Makes the flow see data and contexts with mean 0 and standard deviation 1, feature by feature.

        The standardisation of x becomes the first transform, in place of a `Standardise` that is there already, so that
        log_prob stays that of the data as they are. Where the flow begins with transforms to all real numbers (`Bounds`,
        `Logit`, `UnitInterval`) it follows them, fitted to what they make of x. The context's comes before the embedding.
        Nothing else changes.

        Args:
            x: the data (..., D), or images; or an iterable of tensors, the rows part by part, passed over once.
            context: the contexts (..., F), likewise; None leaves them as they are, and so do labels (`ClassEmbedding`).

        Raises:
            ValueError, TypeError: what `Standardise.fit` raises, another number of features than the flow has, or values
                outside the bounds.
        """
        transforms = list(self.transform) if isinstance(self.transform, Composed) else [self.transform]
        first = list(itertools.takewhile(lambda t: isinstance(t, TO_REAL_NUMBERS), transforms))
        rest = transforms[len(first) :]
        features = Standardise.fit(_through(first, map(self._rows, [x] if isinstance(x, Tensor) else x)))
        if self.base.features not in (None, features.features):
            raise ValueError(f"x: expected {self.base.features} features, found {features.features}")
        contexts = None if context is None or isinstance(self.embedding, ClassEmbedding) else Standardise.fit(context)
        like = placed_like(self, features.mean)
        compose = self.transform.like if isinstance(self.transform, Composed) else Composed
        self.transform = compose([*first, features.to(like), *rest[bool(rest) and isinstance(rest[0], Standardise) :]])
        if contexts is not None:
            self.standardise_context = contexts.to(like)

    def _rows(self, x: Tensor) -> Tensor:
        """Data (..., D), or images (..., C, H, W), as rows (..., D)."""
        return x.flatten(-3) if self.shape is not None and x.shape[-3:] == self.shape else x

    def _events(self, x: Tensor) -> Tensor:
        """Rows (..., D) as what the flow is of: themselves, or images (..., C, H, W)."""
        return x if self.shape is None else x.unflatten(-1, self.shape)

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
