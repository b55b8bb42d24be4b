"""MADE with Gaussian conditionals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..flows import Flow, MaskedAutoregressiveTransform, StandardNormal
from ..flows.autoregressive import SCALE_MAP
from ..ops import ScaleMap


class GaussianMADE(Flow):
    """p(x) = prod_i N(x_i; mu_i, e^{s_i}), with mu_i and s_i from a MADE of the features before i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", section 3.1: it is a MAF of one transform.

    Args:
        features: D.
        hidden_features: widths of the hidden layers.
        context_features: F, the width of the context it is conditioned on; 0 for none.
        scale_map: from the network's output to s: a ScaleMap, or the keyword arguments of one.
        options: the others of `fastgen.nn.MADE`.

    Attributes:
        config: keyword arguments, as JSON knows them, that build the same model again.
    """

    transform: MaskedAutoregressiveTransform

    def __init__(
        self,
        features: int,
        *,
        hidden_features: Sequence[int] = (512, 512),
        context_features: int = 0,
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        transform = MaskedAutoregressiveTransform(
            features,
            hidden_features=hidden_features,
            context_features=context_features,
            scale_map=scale_map,
            device=device,
            dtype=dtype,
            **options,
        )
        super().__init__(StandardNormal(features, device=device, dtype=dtype), transform)

    @property
    def config(self) -> dict[str, Any]:
        return self.transform.config
