"""The fully visible sigmoid belief network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .bernoulli_made import BernoulliMADE


class FVSBN(BernoulliMADE):
    """P(x_i = 1 | x_<i) = sigmoid(a_i + sum_{j<i} w_ij x_j) of binary x: logistic regression, one feature after the other.

    Frey et al. 1996, "Does the Wake-sleep Algorithm Produce Good Density Estimators?"; named by Gan et al. 2015, "Learning
    Deep Sigmoid Belief Networks with Data Augmentation". It is a BernoulliMADE without hidden
    layers.

    Args:
        features: D.
        context_features: F, the width of a context; 0 for none. It adds a linear map of the context to every logit.
        order: the degree of each feature, a permutation of 1..D; or "natural" (1..D), "reversed" (D..1), "random".
        seed: what a random order follows; None draws one from torch's generator.

    Raises:
        ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        order: str | Sequence[int] | Tensor = "natural",
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        own: dict[str, Any] = {"context_features": context_features, "order": order, "seed": seed}
        super().__init__(features, hidden_features=(), device=device, dtype=dtype, **own)

    @property
    def parameter_count(self) -> int:
        """How many parameters count, those under the mask left out: D (D + 1) / 2, and D F for a context."""
        d, f = self.features, self.made.context_features
        return d * (d + 1) // 2 + d * f

    @property
    def config(self) -> dict[str, Any]:
        return {name: super(FVSBN, self).config[name] for name in ("features", "context_features", "order", "seed")}
