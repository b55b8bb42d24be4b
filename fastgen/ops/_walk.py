"""The order in which a CUDA kernel walks a masked autoregressive network: which units are final once i features are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..reference import MaskedNetwork

# As in csrc/cuda: what a block of features has room for. A feature that needs more is a block of its own.
_FEATURES = 16
_WEIGHTS = 7168
_UNITS = 160
_OUTPUTS = 128


class Walk(NamedTuple):
    """What of a network's plan only the walk needs: an int32 tensor on the device of its inputs.

    schedule: for every layer and for i = -1, 0, ..., D known features, how many of its units are final; then the features
        that each block of the walk ends before.
    """

    schedule: Tensor


def make_walk(network: MaskedNetwork, prefixes: Sequence[Tensor], device: torch.device | str) -> Walk:
    """The walk of a network whose layers, then its direct connections, have these prefixes, on the CPU."""
    columns = _columns(network)
    counts = [layer.tolist() for layer in _ready(network, prefixes, columns)]
    flat = [count for layer in counts for count in layer]
    return Walk(torch.tensor(flat + _ends(counts, network, columns), dtype=torch.int32, device=device))


def _columns(network: MaskedNetwork) -> int:
    """The inputs of each feature, of which the network's outputs tell how many there are; 1 where they do not."""
    features = len(network.layers[-1].out_degrees) // network.outputs
    return 1 if network.features % features else network.features // features


def _ready(network: MaskedNetwork, prefixes: Sequence[Tensor], columns: int) -> list[Tensor]:
    """Per layer the units that see none but the first i features, for i = -1, 0, ..., D."""
    # After how many features the first n inputs are final.
    inputs = (torch.arange(network.features + 1, device="cpu") + columns - 1) // columns
    steps: list[Tensor] = []
    for layer, prefix in zip(network.layers, prefixes, strict=False):
        # The first n units are with the last of them.
        final = torch.cat([inputs[:1], steps[-1]]) if steps else inputs
        own = final[prefix]
        if layer.residual is not None:
            own = own.maximum(steps[layer.residual])
        steps.append(own)
    if network.direct:
        steps[-1] = steps[-1].maximum(inputs[prefixes[-1]])
    known = torch.arange(-1, network.features // columns + 1, device="cpu")
    return [torch.searchsorted(own, known, right=True) for own in steps]


def _ends(counts: Sequence[Sequence[int]], network: MaskedNetwork, columns: int) -> list[int]:
    """Blocks of as many features as there is room for."""
    ends, first, features = [], 0, network.features // columns
    while first < features:
        end = first + 1
        while end < min(first + _FEATURES, features) and _fits(counts, network, columns, first, end + 1):
            end += 1
        ends.append(end)
        first = end
    return ends


def _fits(counts: Sequence[Sequence[int]], network: MaskedNetwork, columns: int, first: int, end: int) -> bool:
    hidden = [layer[end] - layer[first] for layer in counts[:-1]]
    widths = [columns * (end - first), *hidden, network.outputs * (end - first)]
    links = [*pairwise(widths), *([(widths[0], widths[-1])] if network.direct else [])]
    # Rows are padded by up to 7 weights, whichever side they are.
    return sum(a * b + 7 * max(a, b) for a, b in links) <= _WEIGHTS and sum(hidden) <= _UNITS and widths[-1] <= _OUTPUTS
