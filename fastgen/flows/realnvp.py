"""RealNVP: affine couplings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..ops import ScaleMap
from .base import Distribution
from .coupling import SCALE_MAP, AffineCoupling
from .coupling_flow import CouplingFlow
from .transform import Transform


class RealNVP(CouplingFlow):
    """Affine couplings, of vectors or, on one level, of images.

    Dinh et al. 2017, "Density estimation using Real NVP".

    Args:
        scale_map: from a network's answer to its log-scale: a ScaleMap, or the keyword arguments of one.
        others: those of `CouplingFlow`.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        shape: Sequence[int] | None = None,
        context_features: int = 0,
        transforms: int = 8,
        hidden_features: Sequence[int] | None = None,
        conditioner: str | None = None,
        mask: str | None = None,
        activation: str = "relu",
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
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
        scale_map = scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)
        super().__init__(
            partial(AffineCoupling, scale_map=scale_map),
            [],
            features,
            shape=shape,
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
        self._config["scale_map"] = dataclasses.asdict(scale_map)
