"""Weights of units that come in no order, brought into the order of their degrees.

Kernels walk the staircase of sorted degrees. They can gather as they go, at a price that grows with the number of rows; a
library's own weight * mask would have copied the weights once, which is what happens here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops import MaskedLayer, MaskedNetwork
from ..ops._library import apply


class Taken(NamedTuple):
    """A parameter of a network, by its place in the list, and the rows and columns to take of it in order; None for all."""

    place: int
    rows: Tensor | None
    columns: Tensor | None


class Order(NamedTuple):
    """The parameters that hidden units in another order change, and what leads back."""

    there: tuple[Taken, ...]
    back: tuple[Taken, ...]

    def of(self, params: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The parameters in this order."""
        if not self.there:
            return list(params)
        found = list(params)
        given = [params[taken.place] for taken in self.there]
        for taken, p in zip(self.there, _reorder(self.there, self.back, *given), strict=True):
            found[taken.place] = p
        return found

    def swapped(self, layers: int, outputs: Tensor) -> Order:
        """This order with the two outputs of each feature swapped too: `outputs` are the rows of the last of so many layers."""
        weight, bias = 2 * layers - 2, 2 * layers - 1

        def swap(all_taken: tuple[Taken, ...]) -> tuple[Taken, ...]:
            columns = next((taken.columns for taken in all_taken if taken.place == weight), None)
            others = (taken for taken in all_taken if taken.place not in (weight, bias))
            return (*others, Taken(weight, outputs, columns), Taken(bias, outputs, None))

        return Order(swap(self.there), swap(self.back))

    def of_units(self, terms: Tensor) -> Tensor:
        """What is (..., H) with the units of the first layer in the order of the library, in this one."""
        there, back = (next((Taken(0, None, t.rows) for t in taken if t.place == 0), None) for taken in self)
        if there is None or back is None:
            return terms
        rows = terms.reshape(-1, terms.shape[-1])
        return _reorder((there,), (back,), rows)[0].view(terms.shape)


def sort_network(network: MaskedNetwork, device: torch.device) -> tuple[MaskedNetwork, Order] | None:
    """The same network with its hidden units in the order of their degrees, and that order; None where they are in it."""
    hidden = [torch.tensor(layer.out_degrees) for layer in network.layers[:-1]]
    orders = [degrees.argsort(stable=True) for degrees in hidden]
    if all(torch.equal(degrees, degrees[order]) for degrees, order in zip(hidden, orders, strict=True)):
        return None
    levels = [network.layers[0].in_degrees, *(tuple(d.sort().values.tolist()) for d in hidden), network.layers[-1].out_degrees]
    layers = tuple(
        MaskedLayer(levels[i], levels[i + 1], layer.strict, layer.activation, layer.residual)
        for i, layer in enumerate(network.layers)
    )
    order = Order(_taken(orders, device), _taken([o.argsort() for o in orders], device))
    return MaskedNetwork(layers, direct=network.direct, outputs=network.outputs), order


def _taken(orders: Sequence[Tensor], device: torch.device) -> tuple[Taken, ...]:
    ends = [None, *(order.to(device) for order in orders), None]
    found = []
    for layer, (into, out) in enumerate(itertools.pairwise(ends)):
        found += [Taken(2 * layer, out, into), Taken(2 * layer + 1, out, None)]
    return tuple(taken for taken in found if taken.rows is not None or taken.columns is not None)


def _reorder(there: tuple[Taken, ...], back: tuple[Taken, ...], *params: Tensor | None) -> Any:
    # A compiler has its own derivative of an index.
    if torch.compiler.is_compiling():
        return _Reorder.forward(there, back, *params)
    return apply(_Reorder, there, back, *params)


class _Reorder(torch.autograd.Function):
    """Its gradient takes the inverse permutation: as fast as it, where that of an index would add up entry by entry."""

    @staticmethod
    def forward(there: tuple[Taken, ...], back: tuple[Taken, ...], *params: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(_take(p, taken) for p, taken in zip(params, there, strict=True))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.there, ctx.back, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads):  # type: ignore[no-untyped-def]
        return None, None, *apply(_Reorder, ctx.back, ctx.there, *grads)


def _take(p: Tensor | None, taken: Taken) -> Tensor | None:
    if p is None:
        return None
    p = p if taken.rows is None else p.index_select(0, taken.rows)
    return p if taken.columns is None else p.index_select(1, taken.columns)
