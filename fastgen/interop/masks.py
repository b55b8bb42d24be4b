"""Masks read back into degrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..nn import network_of_masks
from ..ops import MaskedLayer, MaskedNetwork


def degrees_of_mask(mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Degrees (in,) and (out,), int64 on the CPU, with mask[k, j] = [in_j <= out_k]; None where there are none.

    There are some where the inputs that outputs see are nested, and then the number of them is an output's degree.
    """
    allowed = mask.detach().cpu() != 0
    out_degrees = allowed.sum(1)
    degrees, order = out_degrees.sort()
    # An input's degree is that of the least output that sees it.
    first = allowed[order].to(torch.uint8).argmax(0)
    in_degrees = torch.where(allowed.any(0), degrees[first], allowed.shape[1] + 1)
    return (in_degrees, out_degrees) if torch.equal(in_degrees <= out_degrees[:, None], allowed) else None


class ReadNetwork(NamedTuple):
    """A network of masked layers read back: its description, and which weights its degrees do not mask in full.

    Those have to be multiplied by their masks.
    """

    network: MaskedNetwork
    loose: tuple[bool, ...]


def read_network(
    masks: Sequence[Tensor],
    activations: Sequence[str],
    *,
    outputs: int,
    residuals: Sequence[int | None] | None = None,
    degrees: Sequence[Tensor] | None = None,
    direct: Tensor | None = None,
) -> ReadNetwork:
    """The network of these masks, each (out, in), of which 0 forbids.

    Args:
        masks: of every layer; the last has `outputs` rows for each feature, side by side.
        activations: of every layer, the last the identity.
        residuals: per layer the index of an earlier one whose sum is added to its own; None for none.
        degrees: those of the features and of each layer, where the library keeps them; else they are made of the masks.
        direct: the mask of connections from the inputs to the outputs, in the order of the last layer's rows.

    Raises:
        ValueError: masks of a network that is not autoregressive, or direct connections that its degrees do not mask.
    """
    network = None if degrees is None else _of_degrees(masks, activations, residuals, degrees, outputs)
    if network is None:
        network = network_of_masks(masks, activations=activations, residuals=residuals, direct=direct, outputs=outputs)
    loose = tuple(
        not torch.equal(_mask(layer), mask.detach().cpu() != 0) for layer, mask in zip(network.layers, masks, strict=True)
    )
    if direct is not None:
        ends = MaskedLayer(network.layers[0].in_degrees, network.layers[-1].out_degrees, strict=True)
        if not torch.equal(_mask(ends), direct.detach().cpu() != 0):
            raise ValueError("direct: expected all connections that the order of the features allows")
    return ReadNetwork(network, loose)


def _of_degrees(
    masks: Sequence[Tensor],
    activations: Sequence[str],
    residuals: Sequence[int | None] | None,
    degrees: Sequence[Tensor],
    outputs: int,
) -> MaskedNetwork | None:
    """The network of these degrees; None where its masks are others, or residual streams change their degrees."""
    levels = [tuple(level.tolist()) for level in degrees]
    found = zip(activations, residuals or [None] * len(masks), strict=True)
    layers = tuple(
        MaskedLayer(levels[i], levels[i + 1], i + 1 == len(masks), activation, residual)
        for i, (activation, residual) in enumerate(found)
    )
    if not all(torch.equal(_mask(layer), mask.detach().cpu() != 0) for layer, mask in zip(layers, masks, strict=True)):
        return None
    try:
        return MaskedNetwork(layers, outputs=outputs)
    except ValueError:
        return None


def _mask(layer: MaskedLayer) -> Tensor:
    inputs, outputs = torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees)[:, None]
    return inputs < outputs if layer.strict else inputs <= outputs
