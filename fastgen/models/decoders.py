"""What a latent vector says of data: a network, and the distribution of every feature given what it puts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..flows.batch import draw
from ..nn.mlp import MLP
from ..ops import bernoulli_log_prob, discretized_logistic_log_prob, gaussian_log_prob

# Where the log-scale of a decoder comes from: one number, one for each feature, or the network.
LOG_SCALES = ("shared", "feature", "network")


class Decoder(nn.Module):
    """p(x | z), features independent of each other given z. A subclass gives `log_prob`, `mean` and `sample`.

    Args:
        latent_features, features: L and D.
        parts: the numbers that the network puts out for each feature.
        hidden_features, activation, device, dtype: of the network, an `MLP`.

    Attributes:
        discrete: whether `log_prob` is of probabilities, not densities.
        options: the keyword arguments, as JSON knows them, that a decoder has beside those of all.
    """

    discrete = False

    def __init__(
        self, latent_features: int, features: int, parts: int, *, hidden_features: Sequence[int], activation: str, **placed: Any
    ) -> None:
        super().__init__()
        self.parts, self.options = parts, dict[str, Any]()
        self.network = MLP(latent_features, parts * features, hidden_features=hidden_features, activation=activation, **placed)

    def scaled(self, x: Tensor) -> Tensor:
        """Data as the encoder and the distribution see it: of about one size whatever its units."""
        return x

    def outputs(self, z: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for z (..., L), (..., D) for each of `parts`."""
        # Under autocast the network answers in half precision.
        return self.network(z).to(z.dtype).chunk(self.parts, -1)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """The log-probability of scaled x (..., D) given z (S..., L), x's batch broadcastable to z's: (S...) in nats."""
        raise NotImplementedError

    def mean(self, z: Tensor) -> Tensor:
        """The mean of x given z (..., L), in the units of the data: (..., D)."""
        raise NotImplementedError

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x given z (..., L), without gradients, in the units of the data: (..., D)."""
        raise NotImplementedError


class BernoulliDecoder(Decoder):
    """x_i is 1 with probability sigmoid(l_i(z)), else 0; of x between them the log-probability is linear in x."""

    discrete = True

    def __init__(self, latent_features: int, features: int, **options: Any) -> None:
        super().__init__(latent_features, features, 1, **options)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        (logits,) = self.outputs(z)
        return bernoulli_log_prob(x.expand_as(logits), logits)

    def mean(self, z: Tensor) -> Tensor:
        return self.outputs(z)[0].sigmoid()

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean = self.mean(z)
        return (draw(torch.rand, mean.shape, generator, dtype=mean.dtype, device=mean.device) < mean).to(mean.dtype)


class _Located(Decoder):
    """A mean out of the network, and a log-scale of one of the kinds LOG_SCALES. Raises ValueError for another."""

    # Added to what the log-scale starts at.
    start = 0.0

    def __init__(self, latent_features: int, features: int, *, log_scale: str = "shared", **options: Any) -> None:
        if log_scale not in LOG_SCALES:
            raise ValueError(f"log_scale: expected one of {', '.join(LOG_SCALES)}, found {log_scale!r}")
        network = log_scale == "network"
        super().__init__(latent_features, features, 2 if network else 1, **options)
        self.options = {"log_scale": log_scale}
        placed = {name: options.get(name) for name in ("device", "dtype")}
        numbers = 1 if log_scale == "shared" else features
        self.log_scale = None if network else nn.Parameter(torch.zeros(numbers, **placed))  # type: ignore[arg-type]

    def moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale (..., D) for z (..., L)."""
        mean, *scales = self.outputs(z)
        log_scale = self.log_scale if self.log_scale is not None else scales[0]
        return mean, (log_scale.to(mean.dtype) + self.start).expand_as(mean)


class GaussianDecoder(_Located):
    """x_i is normal with mean mu_i(z) and a log-scale of one of the kinds LOG_SCALES."""

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        mean, log_scale = self.moments(z)
        return gaussian_log_prob(x.expand_as(mean), mean, log_scale)

    def mean(self, z: Tensor) -> Tensor:
        return self.moments(z)[0]

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_scale = self.moments(z)
        noise = draw(torch.randn, mean.shape, generator, dtype=mean.dtype, device=mean.device)
        return mean + log_scale.exp() * noise


class DiscretizedLogisticDecoder(_Located):
    """x_i is a level 0..levels-1: the one nearest to a logistic variable of mean (levels - 1) mu_i(z), those at the ends open.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", appendix C.6.

    levels: at least 2. Raises ValueError for fewer.
    """

    discrete = True
    # A scale of an eighth of all levels.
    start = -2.0

    def __init__(self, latent_features: int, features: int, *, levels: int = 256, **options: Any) -> None:
        if levels < 2:
            raise ValueError(f"levels: expected at least 2, found {levels}")
        super().__init__(latent_features, features, **options)
        self.levels = levels
        self.options = {**self.options, "levels": levels}
        with torch.no_grad():
            # Means start in the middle of the levels.
            self.network.layers[-1].bias[:features].add_(0.5)

    def scaled(self, x: Tensor) -> Tensor:
        return x / (self.levels - 1)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        mean, log_scale = self.moments(z)
        return discretized_logistic_log_prob(x.expand_as(mean), mean, log_scale, levels=self.levels)

    def mean(self, z: Tensor) -> Tensor:
        """The mean of the logistic variable, no further than the levels go."""
        return self.moments(z)[0].clamp(0, 1) * (self.levels - 1)

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean, log_scale = self.moments(z)
        uniform = draw(torch.rand, mean.shape, generator, dtype=mean.dtype, device=mean.device)
        x = mean + log_scale.exp() * uniform.logit()
        return (x * (self.levels - 1)).round().clamp(0, self.levels - 1)


DECODERS: dict[str, type[Decoder]] = {
    "bernoulli": BernoulliDecoder,
    "gaussian": GaussianDecoder,
    "discretized_logistic": DiscretizedLogisticDecoder,
}
