"""MADE with Bernoulli conditionals."""

from __future__ import annotations

from typing import Any

from .autoregressive_density import AutoregressiveDensity
from .conditionals import Bernoulli


class BernoulliMADE(AutoregressiveDensity):
    """P(x) = prod_i Bernoulli(x_i; sigmoid(l_i)) of binary x, with the logit l_i from a MADE of the features before i.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation". x holds 0 and 1.

    Args:
        features: D.
        options: those of `fastgen.nn.MADE`: hidden_features, context_features, order, masks and more.
    """

    discrete = True

    def __init__(self, features: int, **options: Any) -> None:
        super().__init__(features, Bernoulli(), **options)
