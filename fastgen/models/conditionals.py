"""Conditionals: the distribution of one feature given those before it, from what a network puts out for it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flows.autoregressive import SCALE_MAP
from ..flows.batch import draw
from ..ops import (
    ConditionalSampler,
    MaskedNetwork,
    ScaleMap,
    autoregressive_inverse,
    autoregressive_sample,
    gaussian_log_prob,
)
from ..reference.accumulate import accumulator


class Conditional(ABC):
    """What an autoregressive density asks of its conditionals. A subclass gives `sampler` and `log_probs`.

    Attributes:
        sampler: how one feature is drawn.
        outputs: P, what the network puts out per feature.
        inputs: C, the columns of one feature in the network's input.
        discrete: whether log-probabilities are of single values, not densities.
        levels: of discrete ones, how many values there are: 0, 1, ...; else 0.
        reparameterised: whether samples are differentiable in parameters and context.
    """

    discrete: ClassVar[bool] = False
    reparameterised: ClassVar[bool] = False

    @property
    @abstractmethod
    def sampler(self) -> ConditionalSampler: ...

    @property
    def outputs(self) -> int:
        return self.sampler.outputs

    @property
    def inputs(self) -> int:
        return self.sampler.inputs

    @property
    def levels(self) -> int:
        return 0

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same conditional again."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @abstractmethod
    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        """The log-probability of each feature of x (..., D) given outputs (..., D, P): (..., D) in nats.

        float64 for float64 outputs, else float32.
        """

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """`log_probs` summed over the features: (...)."""
        return self.log_probs(x, outputs).sum(-1)

    def encode(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What the network reads of features x (..., D): (..., D C). Of discrete ones in `dtype`, whatever x's is."""
        return self.sampler.encode(x, dtype) if self.discrete else x

    def noise(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """The random numbers (*shape, Q) that `sampler` takes."""
        return draw(torch.rand, (*shape, self.sampler.numbers), generator, dtype=dtype, device=device)

    def sample(
        self, noise: Tensor, network: MaskedNetwork, params: Sequence[Tensor | None], **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Samples (..., D) of a network's density from noise (..., D, Q), and their log-probabilities where those cost no more.

        options: those of `fastgen.ops.autoregressive_inverse`.
        """
        return autoregressive_sample(noise, network, params, sampler=self.sampler, **options), None

    @property
    def start(self) -> Tensor:
        """(P,), float64: where a feature's outputs are when training starts, up to a small random part."""
        return torch.zeros(self.outputs, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Conditional):
    """x is 1 with probability sigmoid(l), else 0; the output is l. Outputs near 0 start near the uniform distribution."""

    discrete = True

    @cached_property
    def sampler(self) -> ConditionalSampler:
        return ConditionalSampler("bernoulli")

    @property
    def levels(self) -> int:
        return 2

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        dtype = accumulator(outputs.dtype)
        return -F.binary_cross_entropy_with_logits(outputs.squeeze(-1).to(dtype), x.to(dtype), reduction="none")


@dataclasses.dataclass(frozen=True)
class Gaussian(Conditional):
    """N(mean, e^s), s = scale_map(log_scale); the outputs are mean and log_scale."""

    scale_map: ScaleMap = SCALE_MAP

    reparameterised = True

    @cached_property
    def sampler(self) -> ConditionalSampler:
        return ConditionalSampler("gaussian", scale_map=self.scale_map)

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        # Of rows of one feature each, the sum over the features is that feature's.
        return self.log_prob(x.unsqueeze(-1), outputs.unsqueeze(-2))

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        # Under autocast the network answers in half precision; the data stay what they are.
        mean, log_scale = outputs.to(x.dtype).unbind(-1)
        return gaussian_log_prob(x, mean, log_scale, scale_map=self.scale_map)

    def noise(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        return draw(torch.randn, (*shape, self.sampler.numbers), generator, dtype=dtype, device=device)

    def sample(
        self, noise: Tensor, network: MaskedNetwork, params: Sequence[Tensor | None], **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        first = params[0]
        assert first is not None
        normal = noise.squeeze(-1).to(first.dtype)
        x, log_det = autoregressive_inverse(normal, network, params, scale_map=self.scale_map, **options)
        return x, gaussian_log_prob(normal) - log_det


@dataclasses.dataclass(frozen=True)
class Mixture(Conditional):
    """sum_k w_k N(mean_k, e^{s_k}), w = softmax(logits), s = scale_map(log_scales).

    The outputs are K logits, then K means, then K log_scales. Raises ValueError for fewer than one component.
    """

    components: int = 10
    scale_map: ScaleMap = SCALE_MAP

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components: expected at least 1, found {self.components}")

    @cached_property
    def sampler(self) -> ConditionalSampler:
        return ConditionalSampler("mixture", self.components, self.scale_map)

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        dtype = accumulator(outputs.dtype)
        logits, means, log_scales = outputs.to(dtype).unflatten(-1, (3, self.components)).unbind(-2)
        s = self.scale_map(log_scales)
        z = (x.to(dtype).unsqueeze(-1) - means) * (-s).exp()
        log_density = -0.5 * (z.square() + math.log(2 * math.pi)) - s
        return (logits.log_softmax(-1) + log_density).logsumexp(-1)

    def noise(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        uniform = draw(torch.rand, tuple(shape), generator, dtype=dtype, device=device)
        normal = draw(torch.randn, tuple(shape), generator, dtype=dtype, device=device)
        return torch.stack([uniform, normal], -1)

    @property
    def start(self) -> Tensor:
        # Component k starts at the (k + 1/2) / K quantile of N(0, 1): each lies nearest to an equal share of standardised
        # data, so that none takes all and none is left with none.
        quantiles = torch.special.ndtri((torch.arange(self.components, dtype=torch.float64) + 0.5) / self.components)
        zeros = torch.zeros_like(quantiles)
        return torch.cat([zeros, quantiles, zeros])


@dataclasses.dataclass(frozen=True)
class Categorical(Conditional):
    """x is c in 0..C-1 with probability softmax(logits)_c; the outputs are the C logits, the network reads x one-hot.

    Other values than 0..C-1 have probability 0, log-probability -inf. Outputs near 0 start near the uniform distribution.
    Raises ValueError for fewer than two categories.
    """

    categories: int

    discrete = True

    def __post_init__(self) -> None:
        if self.categories < 2:
            raise ValueError(f"categories: expected at least 2, found {self.categories}")

    @cached_property
    def sampler(self) -> ConditionalSampler:
        return ConditionalSampler("categorical", self.categories)

    @property
    def levels(self) -> int:
        return self.categories

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        log_probs = outputs.to(accumulator(outputs.dtype)).log_softmax(-1)
        index = x.long().clamp(0, self.categories - 1)
        log_prob = log_probs.gather(-1, index.expand(outputs.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        return torch.where(x == index, log_prob, -torch.inf)


def scale_map_of(scale_map: ScaleMap | Mapping[str, Any]) -> ScaleMap:
    """A ScaleMap as it is, or the one of these keyword arguments."""
    return scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)
