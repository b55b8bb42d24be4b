"""Stacks of couplings: what NICE and RealNVP share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import MLP, ConvNet, ResidualMLP
from ..nn.checks import check_widths
from ..nn.degrees import draw_seed, random_permutation
from ..ops import Checkerboard
from .base import Distribution
from .checks import at_least_one
from .coupling import Conditioner, Coupling
from .image import Unflatten, image_shape
from .stack import StackFlow, placed_embedding
from .transform import Composed, Inverse, Transform

CONDITIONERS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "residual": ResidualMLP}
MASKS = ("halves", "alternating", "random")


def half_masks(kind: str, features: int, seed: int | None, count: int) -> list[Tensor]:
    """The masks (D,) of `count` couplings: one half of the features, then the other, and so on.

    "halves" are the last features and the first, "alternating" every second one, "random" drawn anew for every two couplings.
    The first few are the same whatever the count. Raises ValueError for another kind.
    """
    if kind not in MASKS:
        raise ValueError(f"mask: expected one of {', '.join(MASKS)}, found {kind!r}")
    rng = random.Random(seed)
    natural = torch.arange(features)
    found: list[Tensor] = []
    while len(found) < count:
        rank = random_permutation(features, rng) if kind == "random" else natural
        mask = rank % 2 == 1 if kind == "alternating" else rank >= features // 2
        found += [mask, ~mask]
    return found[:count]


class CouplingFlow(StackFlow):
    """A base distribution seen through a stack of couplings, between halves that take turns.

    The networks' last layers start at zero, and so each coupling as the identity.

    Args:
        coupling: what makes a coupling, given the shape of an event, a mask and a conditioner.
        last: the transforms of rows that follow the couplings.
        features: D, at least 2; for images it follows from `shape`.
        shape: (C, H, W), for images. Their masks are checkerboards of parity 0, 1, 0, ...; with three or more each pixel is
            mapped given others that were. Data are images (..., C, H, W) or their rows (..., D), samples are images;
            preprocessing and base are of rows.
        context_features: F, the width of the context it is conditioned on; 0 for none.
        transforms: how many couplings, at least 1.
        hidden_features: widths of each one's hidden layers; of residual blocks, which are convolutions for images, all equal.
            None: (256, 256), and (64, 64) for images.
        conditioner: "mlp" or "residual"; None: "mlp", and for images the residual network of convolutions, `ConvNet`.
        mask: "halves", "alternating" or "random", see `half_masks`; None: "halves", and for images checkerboards.
        activation: relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu or identity.
        preprocess: transforms of the data before these: those of PREPROCESSING or one's own; the former also as a dict, their
            name under "transform" and their arguments.
        base: the distribution of the noise, one of BASES or one's own; the former also as a dict, their name under "base" and
            their arguments, but features and context_features; None: the standard normal.
        embedding: the network that couplings and base see the context through: a module that takes (..., F), or the arguments
            of an `MLP`, but context_features; or those of a `ClassEmbedding`, its name under "embedding".
        standardise_context: whether there is a standardisation of the context, before the embedding, for
            `fit_standardisation` or a state_dict to set.
        reversible: whether the couplings keep, for gradients, their last output only and rebuild the others', see `Composed`.
        anchor_every: keeps the input of every n-th coupling of a reversible flow too; None: of none.
        seed: what random masks follow; None draws one from torch's generator. Parameters are drawn from torch's generator
            always.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def __init__(
        self,
        coupling: Callable[[Any, Any, Conditioner], Coupling],
        last: Sequence[Transform],
        features: int | None,
        *,
        shape: Sequence[int] | None = None,
        context_features: int,
        transforms: int,
        hidden_features: Sequence[int] | None,
        conditioner: str | None,
        mask: str | None,
        activation: str,
        preprocess: Iterable[Transform | Mapping[str, Any]],
        base: Distribution | Mapping[str, Any] | None,
        embedding: nn.Module | Mapping[str, Any] | None,
        standardise_context: bool,
        reversible: bool,
        anchor_every: int | None,
        seed: int | None,
        **placed: Any,
    ) -> None:
        at_least_one(transforms=transforms)
        image = None if shape is None else image_shape(shape)
        features = _features(features, image)
        if seed is None and mask == "random":
            seed = draw_seed()
        network, seen = placed_embedding(embedding, context_features, **placed)
        options = {"activation": activation, "context_features": seen, "zero_init": True, **placed}
        own: Sequence[Transform]
        if image is None:
            conditioner, mask = conditioner or "mlp", mask or "halves"
            widths = (256, 256) if hidden_features is None else hidden_features
            build = _network(conditioner, widths, options)
            own = [coupling(features, chosen, build) for chosen in half_masks(mask, features, seed, transforms)]
        else:
            widths = (64, 64) if hidden_features is None else hidden_features
            build = _image_network(conditioner, mask, widths, options)
            own = [coupling(image, Checkerboard(i % 2), build) for i in range(transforms)]
        if reversible or anchor_every is not None:
            own = [Composed(own, reversible=reversible, anchor_every=anchor_every)]
        if image is not None:
            own = [Unflatten(image), *own, Inverse(Unflatten(image))]
        config = {
            "features": features,
            "transforms": transforms,
            "hidden_features": list(widths),
            "conditioner": conditioner,
            "mask": mask,
            "activation": activation,
            "reversible": bool(reversible),
            "anchor_every": anchor_every,
            "seed": seed,
            **({} if image is None else {"shape": list(image)}),
        }
        super().__init__(
            features,
            [*own, *last],
            config,
            context_features=context_features,
            preprocess=preprocess,
            base=base,
            embedding=network,
            seen=seen,
            standardise_context=standardise_context,
            **placed,
        )
        self.shape = image


def _features(features: int | None, image: tuple[int, int, int] | None) -> int:
    """D, of at least two: a coupling maps some features given others."""
    if image is not None:
        if features not in (None, math.prod(image)):
            raise ValueError(f"features: expected {math.prod(image)}, as shape {image} has, found {features}")
        return math.prod(image)
    if features is None or features < 2:
        raise ValueError(f"features: expected at least 2 for couplings, found {features}")
    return features


def _network(conditioner: str, widths: Sequence[int], options: Mapping[str, Any]) -> Conditioner:
    if conditioner not in CONDITIONERS:
        raise ValueError(f"conditioner: expected one of {', '.join(CONDITIONERS)}, found {conditioner!r}")
    check_widths(widths, residual=conditioner == "residual")
    return partial(CONDITIONERS[conditioner], hidden_features=widths, **options)


def _image_network(conditioner: str | None, mask: str | None, widths: Sequence[int], options: Mapping[str, Any]) -> Conditioner:
    for name, given in (("conditioner", conditioner), ("mask", mask)):
        if given is not None:
            raise ValueError(f"{name}: expected None for images, found {given!r}")
    check_widths(widths, residual=True)
    if not widths:
        raise ValueError("hidden_features: expected at least one residual block for images, found none")
    return partial(ConvNet, hidden_channels=widths[0], blocks=len(widths), **options)
