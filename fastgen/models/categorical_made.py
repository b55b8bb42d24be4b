"""MADE with categorical conditionals."""

from __future__ import annotations

from typing import Any

from .autoregressive_density import AutoregressiveDensity
from .conditionals import Categorical


class CategoricalMADE(AutoregressiveDensity):
    """P(x) = prod_i softmax(l_i)_{x_i}, with the logits l_i (C,) from a MADE of the features before i, read one-hot.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", with its Bernoulli conditionals generalised.
    x holds 0..C-1; other values have probability 0.

    Args:
        features: D.
        categories: C, at least 2, the same for all features.
        options: those of `fastgen.nn.MADE`: hidden_features, context_features, order, masks and more.
    """

    discrete = True

    def __init__(self, features: int, *, categories: int, **options: Any) -> None:
        super().__init__(features, Categorical(categories), **options)
