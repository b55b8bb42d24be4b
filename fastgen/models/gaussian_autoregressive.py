"""The Gaussian autoregressive model as a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..flows import MAF
from ..flows.autoregressive import SCALE_MAP
from ..ops import ScaleMap

# What a MAF of a single transform calls them.
ORDERS = {"natural": "reverse", "random": "random"}


class GaussianAutoregressive(MAF):
    """x_i = exp(alpha_i) z_i + mu_i, with mu_i and alpha_i of the features before i and z standard normal.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", section 3; seen as a flow by
    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", section 3.1. It is a MAF of one transform,
    and the density of a GaussianMADE. Without hidden layers mu_i and alpha_i are linear in the features before i, but for
    the scale map.

    Args:
        features: D.
        hidden_features: widths of the hidden layers of the network of mu and alpha; none: linear maps.
        order: in which the features are generated, "natural", or "random" as `seed` rules.
        scale_map: from the network's output to alpha: a ScaleMap, or the keyword arguments of one.
        options: those of `fastgen.flows.MAF`, `transforms` excepted.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def __init__(
        self,
        features: int,
        *,
        hidden_features: Sequence[int] = (),
        order: str = "natural",
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        **options: Any,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, found {order!r}")
        super().__init__(
            features, transforms=1, hidden_features=hidden_features, order=ORDERS[order], scale_map=scale_map, **options
        )

    @property
    def config(self) -> dict[str, Any]:
        config = {name: value for name, value in super().config.items() if name != "transforms"}
        return {**config, "order": next(own for own, name in ORDERS.items() if name == config["order"])}
