"""MADE with mixtures of Gaussians as conditionals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flows.autoregressive import SCALE_MAP
from ..ops import ScaleMap
from .autoregressive_density import AutoregressiveDensity
from .conditionals import Mixture, scale_map_of


class MixtureMADE(AutoregressiveDensity):
    """p(x) = prod_i sum_k w_ik N(x_i; mu_ik, e^{s_ik}), with w_i, mu_i and s_i from a MADE of the features before i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", section 4 (MADE MoG). The components start
    spread as data of mean 0 and variance 1 are: standardise others in `preprocess`.

    Args:
        features: D.
        components: K, at least 1.
        scale_map: from the network's outputs to s: a ScaleMap, or the keyword arguments of one.
        options: those of `fastgen.nn.MADE`: hidden_features, context_features, order, masks and more; and `preprocess`,
            transforms of the data before the network, as `fastgen.flows.MAF` takes them.
    """

    def __init__(
        self,
        features: int,
        *,
        components: int = 10,
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        **options: Any,
    ) -> None:
        super().__init__(features, Mixture(components, scale_map_of(scale_map)), **options)
