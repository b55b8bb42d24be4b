"""MADE with Gaussian conditionals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flows.autoregressive import SCALE_MAP
from ..ops import ScaleMap
from .autoregressive_density import AutoregressiveDensity
from .conditionals import Gaussian, scale_map_of


class GaussianMADE(AutoregressiveDensity):
    """p(x) = prod_i N(x_i; mu_i, e^{s_i}), with mu_i and s_i from a MADE of the features before i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", section 3.1: with one mask it is a MAF of one
    transform.

    Args:
        features: D.
        scale_map: from the network's output to s: a ScaleMap, or the keyword arguments of one.
        options: those of `fastgen.nn.MADE`: hidden_features, context_features, order, masks and more; and `preprocess`,
            transforms of the data before the network, as `fastgen.flows.MAF` takes them.
    """

    def __init__(self, features: int, *, scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP, **options: Any) -> None:
        super().__init__(features, Gaussian(scale_map_of(scale_map)), **options)
