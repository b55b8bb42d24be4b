"""NICE: additive couplings and a learned scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .base import Distribution
from .coupling import AdditiveCoupling
from .coupling_flow import CouplingFlow
from .scaling import Scaling
from .transform import Transform


class NICE(CouplingFlow):
    """Additive couplings, then a learned scale for each feature: z = e^{log_scale} f(x), f of volume 1.

    Dinh et al. 2015, "NICE: Non-linear Independent Components Estimation". Arguments: those of `CouplingFlow`. The paper has
    the base "StandardLogistic", the mask "alternating" and networks with five hidden layers of 1000 units.
    """

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        transforms: int = 4,
        hidden_features: Sequence[int] = (256, 256),
        conditioner: str = "mlp",
        mask: str = "halves",
        activation: str = "relu",
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        base: Distribution | Mapping[str, Any] | None = None,
        embedding: nn.Module | Mapping[str, Any] | None = None,
        standardise_context: bool = False,
        reversible: bool = False,
        anchor_every: int | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            AdditiveCoupling,
            [Scaling(features, device=device, dtype=dtype)],
            features,
            context_features=context_features,
            transforms=transforms,
            hidden_features=hidden_features,
            conditioner=conditioner,
            mask=mask,
            activation=activation,
            preprocess=preprocess,
            base=base,
            embedding=embedding,
            standardise_context=standardise_context,
            reversible=reversible,
            anchor_every=anchor_every,
            seed=seed,
            device=device,
            dtype=dtype,
        )
