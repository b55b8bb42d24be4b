"""Mixtures of normal distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import _check
from ..ops.gaussian_log_prob import gaussian_log_prob
from ..reference.accumulate import accumulator
from .base import Distribution
from .batch import draw
from .checks import at_least_one


class MixtureOfNormals(Distribution):
    """sum_k w_k N(mean_k, e^{2 log_scale_k}), a mixture of diagonal normal distributions with all its parameters learned.

    The weights w are the softmax of `weight_logits` (K,); `means` and `log_scales` are (K, D). At first the weights are equal,
    the means standard normal and the scales 1. Samples have no gradients: the choice of a component has none.

    Args:
        features: D.
        components: K.

    Raises:
        ValueError: fewer than one feature or component.
    """

    features: int

    def __init__(
        self,
        features: int,
        components: int = 10,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(features=features, components=components)
        self.features, self.components = features, components
        self.weight_logits = nn.Parameter(torch.zeros(components, device=device, dtype=dtype))
        self.means = nn.Parameter(torch.randn(components, features, device=device, dtype=dtype))
        self.log_scales = nn.Parameter(torch.zeros(components, features, device=device, dtype=dtype))

    @property
    def config(self) -> dict[str, Any]:
        return {"features": self.features, "components": self.components}

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        each = z.unsqueeze(-2).expand(*z.shape[:-1], self.components, self.features)
        log_weights = self.weight_logits.to(accumulator(z.dtype)).log_softmax(0)
        return (log_weights + gaussian_log_prob(each, self.means, self.log_scales)).logsumexp(-1)

    @torch.no_grad()
    def sample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        device = self.means.device
        below = self.weight_logits.to(accumulator(self.means.dtype)).softmax(0).cumsum(0)[:-1]
        uniform = draw(torch.rand, shape, generator, dtype=below.dtype, device=device)
        chosen = torch.searchsorted(below, uniform, right=True)
        noise = draw(torch.randn, (*shape, self.features), generator, dtype=self.means.dtype, device=device)
        return self.means[chosen] + noise * self.log_scales.exp()[chosen]

    def extra_repr(self) -> str:
        return f"features={self.features}, components={self.components}"
