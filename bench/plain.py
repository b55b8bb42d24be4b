"""Masked networks in plain PyTorch, as other libraries write them: what fastgen is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen.nn import MADE
from fastgen.reference import ACTIVATIONS, MaskedLayer, MaskedNetwork, degree_mask


def mask_of(layer: MaskedLayer) -> Tensor:
    """The (out, in) boolean mask of a layer."""
    return degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), layer.strict)


def parameters_of(made: MADE) -> list[Tensor]:
    """Weight and bias of every layer, in order."""
    return [p for layer in made.layers for p in (layer.weight, layer.bias)]


def masked_chain(x: Tensor, network: MaskedNetwork, params: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
    """A network without residual and direct connections, W * M formed on every call; a mask of None leaves W dense."""
    for i, (layer, mask) in enumerate(zip(network.layers, masks, strict=True)):
        weight, bias = params[2 * i], params[2 * i + 1]
        x = ACTIVATIONS[layer.activation](F.linear(x, weight if mask is None else weight * mask, bias))
    return x.unflatten(-1, (-1, network.outputs))
