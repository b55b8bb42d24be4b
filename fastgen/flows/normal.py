"""Normal distributions with learned parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.made import SMALL_START
from ..ops import _check
from ..ops.gaussian_log_prob import gaussian_log_prob
from .autoregressive import SCALE_MAP
from .base import Distribution
from .batch import draw, match_context
from .checks import at_least_one, check_context
from .embedding import MLP


class DiagonalNormal(Distribution):
    """N(mean, e^{2 log_scale}) feature by feature, with mean and log_scale (D,) learned; at first the standard normal.

    Raises ValueError for fewer than one feature.
    """

    features: int

    def __init__(self, features: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        self.mean = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        self.log_scale = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        return gaussian_log_prob(z, self.mean, self.log_scale)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return _scaled_noise(self.mean, self.log_scale, (*shape, self.features), generator)

    def centre(self, context: Tensor | None = None) -> Tensor:
        return self.mean


class ConditionalDiagonalNormal(Distribution):
    """N(mean, e^{2 s}) feature by feature, with mean and s from a network of the context; at first nearly the standard normal.

    s is the soft clip of the network's answer to (-ln 1000, ln 1000), as in the masked autoregressive transform.

    Args:
        features: D.
        context_features: F.
        hidden_features: widths of the network's hidden layers; none makes it a linear map.
        activation: one that `MLP` knows.

    Raises:
        ValueError: a width below 1, an unknown activation.
    """

    features: int
    conditional = True

    def __init__(
        self,
        features: int,
        context_features: int,
        *,
        hidden_features: Sequence[int] = (),
        activation: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        options: dict[str, Any] = {"hidden_features": hidden_features, "activation": activation}
        self.network = MLP(context_features, 2 * features, **options, device=device, dtype=dtype)
        with torch.no_grad():
            for parameter in self.network.layers[-1].parameters():
                parameter.mul_(SMALL_START)

    @property
    def config(self) -> dict[str, Any]:
        return {**self.network.config, "features": self.features}

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        mean, log_scale = self._mean_and_log_scale(context, z.dtype)
        return gaussian_log_prob(match_context(z, context), mean, log_scale, scale_map=SCALE_MAP)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(context, self.network.layers[0].weight.dtype)
        _check.batch_broadcastable(mean, "context", tuple(shape))
        return _scaled_noise(mean, SCALE_MAP(log_scale), (*shape, self.features), generator)

    def centre(self, context: Tensor | None = None) -> Tensor:
        return self._mean_and_log_scale(context, self.network.layers[0].weight.dtype)[0]

    def _mean_and_log_scale(self, context: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # Under autocast the network answers in half precision; the noise stays what it is.
        answer = self.network(check_context(context, self.network.context_features)).to(dtype)
        mean, log_scale = answer.chunk(2, -1)
        return mean, log_scale


def _scaled_noise(mean: Tensor, log_scale: Tensor, size: Sequence[int], generator: torch.Generator | None) -> Tensor:
    noise = draw(torch.randn, size, generator, dtype=mean.dtype, device=mean.device)
    return mean + noise * log_scale.exp()
