"""Conditionals: the distribution of one feature given those before it, from what a network puts out for it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flows.autoregressive import SCALE_MAP
from ..ops import ScaleMap, gaussian_log_prob
from ..reference.accumulate import accumulator


class Conditional(ABC):
    """What an autoregressive density asks of its conditionals. A subclass gives `outputs`, `log_probs` and `draw`.

    Attributes:
        outputs: P, what the network puts out per feature.
        inputs: C, the columns of one feature in the network's input.
        numbers: R, the random numbers that draw one feature.
        unknown: stands in x for a feature that is not known; the network reads zeros there.
        discrete: whether log-probabilities are of single values, not densities.
        levels: of discrete ones, how many values there are: 0, 1, ...; else 0.
        reparameterised: whether what is drawn is differentiable in the outputs.
    """

    numbers: ClassVar[int] = 1
    unknown: ClassVar[float] = 0.0
    discrete: ClassVar[bool] = False
    reparameterised: ClassVar[bool] = False

    @property
    @abstractmethod
    def outputs(self) -> int: ...

    @property
    def inputs(self) -> int:
        return 1

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
        return x.to(dtype) if self.discrete else x

    def noise(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """The random numbers (*shape, R) that `draw` takes."""
        return torch.rand((*shape, self.numbers), dtype=dtype, device=device, generator=generator)

    @abstractmethod
    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """One feature (...) from its outputs (..., P) and noise (..., R), in the noise's dtype."""

    @property
    def start(self) -> Tensor:
        """(P,), float64: where a feature's outputs are when training starts, up to a small random part."""
        return torch.zeros(self.outputs, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Conditional):
    """x is 1 with probability sigmoid(l), else 0; the output is l. Outputs near 0 start near the uniform distribution."""

    discrete = True

    @property
    def outputs(self) -> int:
        return 1

    @property
    def levels(self) -> int:
        return 2

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        dtype = accumulator(outputs.dtype)
        return -F.binary_cross_entropy_with_logits(outputs.squeeze(-1).to(dtype), x.to(dtype), reduction="none")

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return (noise.squeeze(-1) < outputs.squeeze(-1).to(noise.dtype).sigmoid()).to(noise.dtype)


@dataclasses.dataclass(frozen=True)
class Gaussian(Conditional):
    """N(mean, e^s), s = scale_map(log_scale); the outputs are mean and log_scale."""

    scale_map: ScaleMap = SCALE_MAP

    reparameterised = True

    @property
    def outputs(self) -> int:
        return 2

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
        return torch.randn((*shape, self.numbers), dtype=dtype, device=device, generator=generator)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        mean, log_scale = outputs.to(noise.dtype).unbind(-1)
        return noise.squeeze(-1) * self.scale_map(log_scale).exp() + mean


@dataclasses.dataclass(frozen=True)
class Mixture(Conditional):
    """sum_k w_k N(mean_k, e^{s_k}), w = softmax(logits), s = scale_map(log_scales).

    The outputs are K logits, then K means, then K log_scales. Raises ValueError for fewer than one component.
    """

    components: int = 10
    scale_map: ScaleMap = SCALE_MAP

    numbers = 2

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components: expected at least 1, found {self.components}")

    @property
    def outputs(self) -> int:
        return 3 * self.components

    def _parameters(self, outputs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        logits, means, log_scales = outputs.to(dtype).unflatten(-1, (3, self.components)).unbind(-2)
        return logits, means, self.scale_map(log_scales)

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        dtype = accumulator(outputs.dtype)
        logits, means, s = self._parameters(outputs, dtype)
        z = (x.to(dtype).unsqueeze(-1) - means) * (-s).exp()
        log_density = -0.5 * (z.square() + math.log(2 * math.pi)) - s
        return (logits.log_softmax(-1) + log_density).logsumexp(-1)

    def noise(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        uniform = torch.rand(tuple(shape), dtype=dtype, device=device, generator=generator)
        normal = torch.randn(tuple(shape), dtype=dtype, device=device, generator=generator)
        return torch.stack([uniform, normal], -1)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        uniform, normal = noise.unbind(-1)
        logits, means, s = self._parameters(outputs, noise.dtype)
        k = _choose(logits, uniform).unsqueeze(-1)
        return normal * s.gather(-1, k).squeeze(-1).exp() + means.gather(-1, k).squeeze(-1)

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

    unknown = -1.0
    discrete = True

    def __post_init__(self) -> None:
        if self.categories < 2:
            raise ValueError(f"categories: expected at least 2, found {self.categories}")

    @property
    def outputs(self) -> int:
        return self.categories

    @property
    def inputs(self) -> int:
        return self.categories

    @property
    def levels(self) -> int:
        return self.categories

    def log_probs(self, x: Tensor, outputs: Tensor) -> Tensor:
        log_probs = outputs.to(accumulator(outputs.dtype)).log_softmax(-1)
        index = x.long().clamp(0, self.categories - 1)
        log_prob = log_probs.gather(-1, index.expand(outputs.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        return torch.where(x == index, log_prob, -torch.inf)

    def encode(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return (x.unsqueeze(-1) == torch.arange(self.categories, device=x.device)).to(dtype).flatten(-2)

    def draw(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return _choose(outputs.to(noise.dtype), noise.squeeze(-1)).to(noise.dtype)


def scale_map_of(scale_map: ScaleMap | Mapping[str, Any]) -> ScaleMap:
    """A ScaleMap as it is, or the one of these keyword arguments."""
    return scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)


def _choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """The category (...) at which the distribution function of softmax(logits) (..., C) passes uniform (...): int64."""
    sums = logits.softmax(-1).cumsum(-1)
    # The last sum is 1 up to rounding, and a number below 1 times it is below it.
    return (sums <= uniform.unsqueeze(-1) * sums[..., -1:]).sum(-1)
