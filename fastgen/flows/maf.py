"""The masked autoregressive flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..nn.degrees import draw_seed, seeds
from ..ops import ScaleMap
from .autoregressive import SCALE_MAP, MaskedAutoregressiveTransform
from .base import StandardNormal
from .elementwise import Logit, Standardise, UnitInterval
from .flow import Flow
from .permutation import Permutation
from .transform import Composed, Transform

PREPROCESSING = {kind.__name__: kind for kind in (Logit, Permutation, Standardise, UnitInterval)}

ORDERS = {"reverse": ("natural", "reversed"), "random": ("random",)}


class MAF(Flow):
    """A masked autoregressive flow: a standard normal seen through a stack of masked autoregressive transforms.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation".

    Args:
        features: D.
        context_features: F, the width of the context it is conditioned on; 0 for none.
        transforms: how many masked autoregressive transforms, at least 1.
        hidden_features: widths of each one's hidden layers.
        order: "reverse", each transform generates the features in the order opposite to the one before, or "random".
        scale_map: from a network's output to its log-scale: a ScaleMap, or the keyword arguments of one.
        preprocess: transforms of the data before these: Logit, Permutation, Standardise, UnitInterval or one's own; the four
            also as a dict, their name under "transform" and their arguments.
        seed: what random orders and degrees follow; None draws one from torch's generator. Parameters are drawn from
            torch's generator always.
        options: those of `fastgen.nn.MADE`: activation, hidden_degrees, direct, residual.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    transform: Composed

    def __init__(
        self,
        features: int,
        *,
        context_features: int = 0,
        transforms: int = 5,
        hidden_features: Sequence[int] = (512, 512),
        order: str = "reverse",
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        if transforms < 1:
            raise ValueError(f"transforms: expected at least 1, found {transforms}")
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)}, found {order!r}")
        if seed is None and "random" in (order, options.get("hidden_degrees")):
            seed = draw_seed()
        orders = ORDERS[order]
        blocks = [
            MaskedAutoregressiveTransform(
                features,
                context_features=context_features,
                hidden_features=hidden_features,
                order=orders[i % len(orders)],
                scale_map=scale_map,
                seed=block_seed,
                device=device,
                dtype=dtype,
                **options,
            )
            for i, block_seed in enumerate(seeds(seed, transforms))
        ]
        before = [_preprocessing(t).to(device=device, dtype=dtype) for t in preprocess]
        super().__init__(StandardNormal(features, device=device, dtype=dtype), Composed([*before, *blocks]))
        self._config = {**blocks[0].config, "transforms": transforms, "order": order, "seed": seed}

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same flow again; its state_dict holds all numbers.

        Raises TypeError where `preprocess` holds a transform of one's own.
        """
        before = list(self.transform)[: -self._config["transforms"]]
        return {**self._config, "preprocess": [_described(t) for t in before]}


def _preprocessing(transform: Transform | Mapping[str, Any]) -> Transform:
    if isinstance(transform, Transform):
        return transform
    options = dict(transform)
    kind = options.pop("transform", None)
    if kind not in PREPROCESSING:
        raise ValueError(f"preprocess: expected 'transform' to be one of {', '.join(PREPROCESSING)}, found {kind!r}")
    return PREPROCESSING[kind](**options)


def _described(transform: Transform) -> dict[str, Any]:
    name = type(transform).__name__
    if PREPROCESSING.get(name) is not type(transform):
        raise TypeError(f"preprocess: expected transforms of {', '.join(PREPROCESSING)} for a config, found {name}")
    return {"transform": name, **transform.config}
