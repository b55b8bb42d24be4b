"""Masked networks that were made elsewhere: out of their masks, and as JSON knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops import MaskedLayer, MaskedNetwork


def network_of_masks(
    masks: Sequence[Tensor],
    *,
    activations: Sequence[str],
    residuals: Sequence[int | None] | None = None,
    direct: Tensor | None = None,
    outputs: int = 2,
) -> MaskedNetwork:
    """The description of an autoregressive network that is given by its masks, for weights that are multiplied by them.

    Its degrees allow all that the masks allow, and more where these are no staircase: what a mask forbids beyond them is
    for the weights to hold as zeros. Features get the degrees of an order in which each comes after those it depends on; a
    hidden unit that of the last feature it depends on, and units along a residual stream a common one.

    Args:
        masks: of every layer, (out, in), bool or numbers of which 0 forbids; the last has `outputs` rows for each feature, side
            by side.
        activations: of every layer, the last the identity.
        residuals: per layer the index of an earlier one whose sum is added to its own; None for none.
        direct: the mask of connections from the inputs to the outputs.

    Raises:
        ValueError: masks of widths that do not fit together, or a feature that depends on itself.
    """
    masks = [mask.detach().cpu() != 0 for mask in masks]
    residuals = residuals or [None] * len(masks)
    features = masks[0].shape[1]
    for i, mask in enumerate(masks):
        into = masks[i - 1].shape[0] if i else features
        if mask.dim() != 2 or mask.shape[1] != into:
            raise ValueError(f"masks[{i}]: expected shape (out, {into}), found {tuple(mask.shape)}")
    if masks[-1].shape[0] != outputs * features:
        raise ValueError(f"masks[{len(masks) - 1}]: expected {outputs * features} rows, found {masks[-1].shape[0]}")
    feature_degrees = _order(_dependencies(masks, residuals, direct, outputs))
    hidden = _hidden(masks, residuals, feature_degrees)
    ends = feature_degrees.repeat_interleave(outputs)
    levels = [tuple(level.tolist()) for level in (feature_degrees, *hidden, ends)]
    layers = [
        MaskedLayer(levels[i], levels[i + 1], i + 1 == len(masks), activation, residual)
        for i, (activation, residual) in enumerate(zip(activations, residuals, strict=True))
    ]
    return MaskedNetwork(tuple(layers), direct=direct is not None, outputs=outputs)


def describe_network(network: MaskedNetwork) -> dict[str, Any]:
    """What `described_network` makes the same network from: the degrees of all levels, and of each layer the rest."""
    return {
        "degrees": [list(network.layers[0].in_degrees), *(list(layer.out_degrees) for layer in network.layers)],
        "strict": [layer.strict for layer in network.layers],
        "activations": [layer.activation for layer in network.layers],
        "residuals": [layer.residual for layer in network.layers],
        "direct": network.direct,
        "outputs": network.outputs,
    }


def described_network(description: Mapping[str, Any]) -> MaskedNetwork:
    """The network of a description. Raises ValueError, TypeError or KeyError where it is none."""
    degrees = [tuple(map(int, level)) for level in description["degrees"]]
    each = zip(description["strict"], description["activations"], description["residuals"], strict=True)
    layers = [MaskedLayer(degrees[i], degrees[i + 1], *own) for i, own in enumerate(each)]
    if len(degrees) != len(layers) + 1:
        raise ValueError(f"degrees: expected those of {len(layers) + 1} levels, found {len(degrees)}")
    return MaskedNetwork(tuple(layers), direct=description["direct"], outputs=description["outputs"])


def _dependencies(masks: Sequence[Tensor], residuals: Sequence[int | None], direct: Tensor | None, outputs: int) -> Tensor:
    """(D, D): whether the outputs of a feature depend on another feature."""
    sums: list[Tensor] = []
    for mask, residual in zip(masks, residuals, strict=True):
        seen = (mask.float() @ sums[-1].float()) > 0 if sums else mask
        sums.append(seen if residual is None else seen | sums[residual])
    last = sums[-1] if direct is None else sums[-1] | (direct.detach().cpu() != 0)
    return last.view(-1, outputs, last.shape[1]).any(1)


def _order(depends: Tensor) -> Tensor:
    """Degrees 1..D such that each feature depends on features of lower degree only; of those that may come next, the first."""
    degrees = torch.zeros(len(depends), dtype=torch.int64)
    for degree in range(1, len(depends) + 1):
        ready = (degrees == 0) & ~(depends & (degrees == 0)).any(1)
        if not ready.any():
            left = torch.nonzero(degrees == 0).flatten().tolist()
            raise ValueError(f"masks: expected an autoregressive network, found features {left} that depend on each other")
        degrees[int(ready.int().argmax())] = degree
    return degrees


def _hidden(masks: Sequence[Tensor], residuals: Sequence[int | None], features: Tensor) -> list[Tensor]:
    """The least degrees of hidden units that allow what the masks allow, equal along residual streams."""
    hidden = [torch.zeros(mask.shape[0], dtype=torch.int64) for mask in masks[:-1]]
    before: list[Tensor] = []
    while not before or any(not torch.equal(a, b) for a, b in zip(before, hidden, strict=True)):
        before = [degrees.clone() for degrees in hidden]
        for i, mask in enumerate(masks[:-1]):
            into = hidden[i - 1] if i else features
            hidden[i] = torch.maximum(hidden[i], torch.where(mask, into, 0).amax(1))
            source = residuals[i]
            if source is not None:
                hidden[i] = torch.maximum(hidden[i], hidden[source])
                hidden[source] = hidden[i].clone()
        if not hidden:
            break
    return hidden
