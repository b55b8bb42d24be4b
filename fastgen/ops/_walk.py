"""The order in which a CUDA kernel walks a masked autoregressive network: which units are final once i features are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..reference import MaskedNetwork

# As in csrc/cuda: what the triangle of a block of features has room for. A feature that needs more is a block of its own.
_FEATURES = 16
_WEIGHTS = 7168
_UNITS = 160


class Walk(NamedTuple):
    """What of a network's plan only the walk needs: an int32 tensor on the device of its inputs.

    schedule: for every layer and for i = -1, 0, ..., D known features, how many of its units are final; then the features
        that each block of the walk ends before.
    """

    schedule: Tensor


def make_walk(network: MaskedNetwork, prefixes: Sequence[Tensor], device: torch.device | str) -> Walk:
    """The walk of a network whose layers, then its direct connections, have these prefixes, on the CPU."""
    ready = _ready(network, prefixes)
    counts = [layer.tolist() for layer in ready]
    return Walk(torch.tensor([c for layer in counts for c in layer] + _ends(counts, network), dtype=torch.int32, device=device))


def _ready(network: MaskedNetwork, prefixes: Sequence[Tensor]) -> list[Tensor]:
    """Per layer the units that see none but the first i features, for i = -1, 0, ..., D."""
    features = torch.arange(network.features + 1, device="cpu")
    steps: list[Tensor] = []
    for layer, prefix in zip(network.layers, prefixes, strict=False):
        # When the first n inputs are final: after n features, or with the last of n units.
        final = torch.cat([features[:1], steps[-1]]) if steps else features
        own = final[prefix]
        if layer.residual is not None:
            own = own.maximum(steps[layer.residual])
        steps.append(own)
    if network.direct:
        steps[-1] = steps[-1].maximum(prefixes[-1])
    known = torch.arange(-1, network.features + 1, device="cpu")
    return [torch.searchsorted(own, known, right=True) for own in steps]


def _ends(counts: Sequence[Sequence[int]], network: MaskedNetwork) -> list[int]:
    """Blocks of as many features as their triangle has room for."""
    ends, first = [], 0
    while first < network.features:
        end = first + 1
        while end < min(first + _FEATURES, network.features) and _fits(counts, network, first, end + 1):
            end += 1
        ends.append(end)
        first = end
    return ends


def _fits(counts: Sequence[Sequence[int]], network: MaskedNetwork, first: int, end: int) -> bool:
    hidden = [layer[end] - layer[first] for layer in counts[:-1]]
    widths = [end - first, *hidden, network.outputs * (end - first)]
    links = [*pairwise(widths), *([(widths[0], widths[-1])] if network.direct else [])]
    # Rows are padded by up to 7 weights, whichever side they are.
    return sum(a * b + 7 * max(a, b) for a, b in links) <= _WEIGHTS and sum(hidden) <= _UNITS
