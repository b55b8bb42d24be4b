"""Weights of units that come in no order, brought into the order of their degrees.

Kernels walk the staircase of sorted degrees. They can gather as they go, at a price that grows with the number of rows; a
library's own weight * mask would have copied the weights once, which is what happens here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
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

    @property
    def back(self) -> Taken:
        rows, columns = (None if order is None else order.argsort() for order in self[1:])
        return Taken(self.place, rows, columns)


class Order(NamedTuple):
    """The parameters that units in another order change, and what leads back."""

    there: tuple[Taken, ...]
    back: tuple[Taken, ...]

    @staticmethod
    def taking(there: Iterable[Taken]) -> Order:
        there = tuple(taken for taken in there if taken.rows is not None or taken.columns is not None)
        return Order(there, tuple(taken.back for taken in there))

    def with_ends(self, last: int, direct: bool, *, rows: Tensor | None = None, columns: Tensor | None = None) -> Order:
        """This order, then these rows of the layer of index `last` and columns of the first, and both of direct connections."""
        if rows is None and columns is None:
            return self
        found = {taken.place: taken for taken in self.there}

        def then(place: int, rows: Tensor | None, columns: Tensor | None) -> None:
            before = found.get(place, Taken(place, None, None))
            found[place] = Taken(place, _then(before.rows, rows), _then(before.columns, columns))

        then(0, None, columns)
        then(2 * last, rows, None)
        then(2 * last + 1, rows, None)
        if direct:
            then(2 * last + 2, rows, columns)
        return Order.taking(found.values())

    def of(self, params: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The parameters in this order."""
        if not self.there:
            return list(params)
        found = list(params)
        given = [params[taken.place] for taken in self.there]
        for taken, p in zip(self.there, _reorder(self.there, self.back, *given), strict=True):
            found[taken.place] = p
        return found

    @property
    def units(self) -> Tensor | None:
        """The units of the first layer in this order; None for all as they are."""
        return next((taken.rows for taken in self.there if taken.place == 0), None)

    def of_units(self, terms: Tensor) -> Tensor:
        """What is (..., H) with the units of the first layer in the order of the library, in this one."""
        units = self.units
        if units is None:
            return terms
        there, back = Order.taking([Taken(0, None, units)])
        return _reorder(there, back, terms.reshape(-1, terms.shape[-1]))[0].view(terms.shape)

    def taken(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Those that change, in this order, without gradients: `put_back` leads those back."""
        return [_take(tensors[taken.place], taken) for taken in self.there]

    def replaced(self, tensors: Sequence[Tensor | None], taken: Sequence[Tensor | None]) -> list[Tensor | None]:
        """All of them, with what `taken` gave in its places."""
        found = list(tensors)
        for one, p in zip(self.there, taken, strict=True):
            found[one.place] = p
        return found

    def put_back(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of what is in this order, as those of what was."""
        found = list(grads)
        for taken in self.back:
            found[taken.place] = _take(found[taken.place], taken)
        return found


def _then(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first[second]


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
    order = Order.taking(_taken(orders, device))
    return MaskedNetwork(layers, direct=network.direct, outputs=network.outputs), order


def _taken(orders: Sequence[Tensor], device: torch.device) -> Iterator[Taken]:
    ends = [None, *(order.to(device) for order in orders), None]
    for layer, (into, out) in enumerate(itertools.pairwise(ends)):
        yield Taken(2 * layer, out, into)
        yield Taken(2 * layer + 1, out, None)


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
