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

    def taken(self, params: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The parameters that change, in this order, without gradients: `put_back` leads those back."""
        return [_take(params[taken.place], taken) for taken in self.there]

    def replaced(self, params: Sequence[Tensor | None], taken: Sequence[Tensor | None]) -> list[Tensor | None]:
        """All parameters, contiguous, with those that `taken` gave in their places."""
        found = [p if p is None or p.is_contiguous() else p.contiguous() for p in params]
        for one, p in zip(self.there, taken, strict=True):
            found[one.place] = p
        return found

    def put_back(self, grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
        """The gradients of what is in this order, as those of what was; None where one is not needed."""
        found = [g if needed else None for g, needed in zip(grads, needs, strict=True)]
        for taken in self.back:
            found[taken.place] = _take(found[taken.place], taken)
        return found

    def with_rows(self, last: int, rows: Tensor | None, direct: bool) -> Order:
        """This order with these rows of the layer of index `last`, and of direct connections, in place of all as they lie."""
        if rows is None:
            return self

        def with_ends(all_taken: tuple[Taken, ...], rows: Tensor) -> tuple[Taken, ...]:
            weight = 2 * last
            columns = next((taken.columns for taken in all_taken if taken.place == weight), None)
            others = (taken for taken in all_taken if taken.place < weight)
            ends = (Taken(weight, rows, columns), Taken(weight + 1, rows, None), Taken(weight + 2, rows, None))
            return (*others, *ends[: 2 + direct])

        return Order(with_ends(self.there, rows), with_ends(self.back, rows.argsort()))

    def of_units(self, terms: Tensor) -> Tensor:
        """What is (..., H) with the units of the first layer in the order of the library, in this one."""
        there, back = (_of_first_units(taken) for taken in self)
        if there is None or back is None:
            return terms
        rows = terms.reshape(-1, terms.shape[-1])
        return _reorder((there,), (back,), rows)[0].view(terms.shape)

    def taken_of_units(self, terms: Tensor | None) -> Tensor | None:
        """As `of_units`, without gradients, of rows."""
        there = _of_first_units(self.there)
        return terms if there is None else _take(terms, there)

    def put_back_units(self, grad: Tensor) -> Tensor | None:
        back = _of_first_units(self.back)
        return grad if back is None else _take(grad, back)


def _of_first_units(all_taken: Sequence[Taken]) -> Taken | None:
    """What of a context's terms is to be taken where this is of the parameters."""
    return next((Taken(0, None, taken.rows) for taken in all_taken if taken.place == 0 and taken.rows is not None), None)


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
