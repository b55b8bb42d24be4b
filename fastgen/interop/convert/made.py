"""The MADE that nflows and normflows share, but for details."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...ops import ScaleMap
from .. import made
from .parts import Linear, activation_of, refusal


def made_layers(network: Any, *, first_active: bool) -> tuple[list[Linear], Linear | None]:
    """The layers of a MADE, outputs shift and scale for each feature, and the linear map of its context.

    first_active: whether an activation follows the first layer before blocks that are not residual.

    Raises TypeError for batch norm and for contexts that enter residual blocks.
    """
    layers = [Linear.of(network.initial_layer)]
    for block in network.blocks:
        layers = _residual(layers, block) if hasattr(block, "linear_layers") else _forward(layers, block, first_active)
    # They answer with scale and shift.
    features = network.initial_layer.in_features
    layers.append(Linear.of(network.final_layer).rows(torch.arange(2 * features).view(-1, 2).flip(1).flatten()))
    if not network.blocks and first_active:
        layers[0] = layers[0]._replace(activation=activation_of(network.activation, network))
    context = getattr(network, "context_layer", None)
    return layers, None if context is None else Linear.of(context)


def _forward(layers: list[Linear], block: Any, first_active: bool) -> list[Linear]:
    activation = activation_of(block.activation, block)
    if block.batch_norm is not None:
        raise refusal(block, "expected no batch norm inside a masked network")
    if first_active and len(layers) == 1:
        layers = [layers[0]._replace(activation=activation)]
    return [*layers, Linear.of(block.linear, activation)]


def _residual(layers: list[Linear], block: Any) -> list[Linear]:
    activation = activation_of(block.activation, block)
    if block.use_batch_norm:
        raise refusal(block, "expected no batch norm inside a masked network")
    if isinstance(getattr(block, "context_layer", None), nn.Module):
        raise refusal(block, "expected a context in the first layer only, found one in a residual block")
    inner, outer = block.linear_layers
    # The stream goes on as it is, so that its activation belongs to what reads it: the last layer reads none.
    *before, stream = layers
    return [
        *before,
        stream._replace(activation=activation),
        Linear.of(inner, activation),
        Linear.of(outer, residual=len(before)),
    ]


def scale_map_of(layer: Any) -> ScaleMap:
    """The map that a transform's own formula shows: its scale has changed between versions of one number."""
    found = made.scale_map_of(layer)
    if found is None:
        raise refusal(layer, "expected a scale of softplus(u) + 1e-3 or sigmoid(u + 2) + 1e-3, found another")
    return found
