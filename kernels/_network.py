"""What kernels that walk a whole network are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._activations import FUSED


class Network(NamedTuple):
    """What the kernels are told of a network: tuples with an entry for every layer, in plans also for direct connections."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    in_orders: tuple[Tensor | None, ...]
    out_orders: tuple[Tensor | None, ...]
    prefixes: tuple[Tensor, ...]
    suffixes: tuple[Tensor, ...]
    widths: tuple[int, ...]  # of x, then of every layer
    # Each a constexpr: older Tritons do not see them in a tuple's plain entries.
    stored: tuple[tl.constexpr, ...]  # the activation before what is saved
    loaded: tuple[tl.constexpr, ...]  # and after it, where a layer's sums are saved
    residuals: tuple[tl.constexpr, ...]


def network_of(params: Sequence[Any], plan: Sequence[Any], activations: Sequence[str], residuals: Sequence[int]) -> Network:
    count = len(activations)
    end = 4 * (len(params) - count)
    weights = (*params[0 : 2 * count : 2], *params[2 * count :])
    keeps_sums = [i < count - 1 and (name not in FUSED or i in residuals) for i, name in enumerate(activations)]
    in_orders, out_orders, prefixes, suffixes = (tuple(plan[i:end:4]) for i in range(4))
    return Network(
        weights,
        tuple(params[1 : 2 * count : 2]),
        in_orders,
        out_orders,
        prefixes,
        suffixes,
        (weights[0].shape[1], *(w.shape[0] for w in weights[:count])),
        tuple(tl.constexpr("identity" if keeps else name) for keeps, name in zip(keeps_sums, activations, strict=True)),
        tuple(tl.constexpr(name if keeps else "identity") for keeps, name in zip(keeps_sums, activations, strict=True)),
        tuple(map(tl.constexpr, residuals)),
    )


@triton.jit
def block(pointer, rows, widths, LAYER: tl.constexpr):
    """Where the values of a layer begin: after those of the layers before, of `rows` rows each."""
    before = tl.zeros((), tl.int64)
    for i in tl.static_range(LAYER):
        before += widths[i + 1]
    return pointer + before * rows
