"""Stacks of masked autoregressive transforms: what MAF and IAF share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..nn.degrees import draw_seed, seeds
from ..ops import ScaleMap
from .autoregressive import SCALE_MAP, MaskedAutoregressiveTransform
from .base import Distribution
from .batch_norm import BatchNorm
from .checks import at_least_one
from .stack import StackFlow, placed_embedding
from .transform import Transform

ORDERS = {"reverse": ("natural", "reversed"), "random": ("random",)}


def settled_seed(seed: int | None, order: str, options: Mapping[str, Any]) -> int | None:
    """The seed; where random orders or degrees need one and there is none, one drawn from torch's generator."""
    return draw_seed() if seed is None and "random" in (order, options.get("hidden_degrees")) else seed


def orders(order: str, seed: int | None, count: int) -> list[dict[str, Any]]:
    """The order and the seed of each network of a stack, arguments of `fastgen.nn.MADE`.

    The first few are the same whatever the count. Raises ValueError for an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, found {order!r}")
    cycle = itertools.cycle(ORDERS[order])
    return [{"order": name, "seed": own} for name, own in zip(cycle, seeds(seed, count), strict=False)]


class AutoregressiveFlow(StackFlow):
    """A base distribution seen through a stack of masked autoregressive transforms, each in the direction of `directed`.

    Args:
        features: D.
        context_features: F, the width of the context it is conditioned on; 0 for none.
        transforms: how many masked autoregressive transforms, at least 1.
        hidden_features: widths of each one's hidden layers.
        order: "reverse", each transform generates the features in the order opposite to the one before, or "random".
        scale_map: from a network's output to its log-scale: a ScaleMap, or the keyword arguments of one.
        preprocess: transforms of the data before these: those of PREPROCESSING or one's own; the former also as a dict, their
            name under "transform" and their arguments.
        base: the distribution of the noise, one of BASES or one's own; the former also as a dict, their name under "base" and
            their arguments, but features and context_features; None: the standard normal.
        batch_norm: whether a BatchNorm follows each masked autoregressive transform.
        embedding: the network that transforms and base see the context through: a module that takes (..., F), or the
            arguments of an `MLP`, but context_features; or those of a `ClassEmbedding`, its name under "embedding".
        standardise_context: whether there is a standardisation of the context, before the embedding, for
            `fit_standardisation` or a state_dict to set.
        seed: what random orders and degrees follow; None draws one from torch's generator. Parameters are drawn from
            torch's generator always.
        options: those of `fastgen.nn.MADE`: activation, hidden_degrees, direct, residual.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def directed(self, block: MaskedAutoregressiveTransform) -> Transform:
        """The transform from data to noise that a block serves as."""
        raise NotImplementedError

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
        base: Distribution | Mapping[str, Any] | None = None,
        batch_norm: bool = False,
        embedding: nn.Module | Mapping[str, Any] | None = None,
        standardise_context: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        at_least_one(transforms=transforms)
        seed = settled_seed(seed, order, options)
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        network, seen = placed_embedding(embedding, context_features, **placed)
        blocks = [
            MaskedAutoregressiveTransform(
                features,
                context_features=seen,
                hidden_features=hidden_features,
                scale_map=scale_map,
                **own,
                **placed,
                **options,
            )
            for own in orders(order, seed, transforms)
        ]
        stack: list[Transform] = []
        for block in blocks:
            directed = self.directed(block)
            stack.extend([directed, BatchNorm(features, **placed)] if batch_norm else [directed])
        config = {"transforms": transforms, "batch_norm": batch_norm, "order": order, "seed": seed}
        super().__init__(
            features,
            stack,
            {**blocks[0].config, **config},
            context_features=context_features,
            preprocess=preprocess,
            base=base,
            embedding=network,
            seen=seen,
            standardise_context=standardise_context,
            **placed,
        )
