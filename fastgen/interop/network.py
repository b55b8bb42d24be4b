"""A whole masked network of another library as one call, and the affine transform of its outputs, in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..ops import (
    MaskedNetwork,
    NetworkPlan,
    ScaleMap,
    affine_autoregressive,
    autoregressive_inverse,
    make_network_plan,
    masked_autoregressive,
    masked_mlp,
)
from ..ops._library import needs_gradients
from .chain import Block, Part, one_node
from .masks import ReadNetwork
from .sorted import Order, sort_network

# All count rows times weights, and were measured on one core (bench/NOTES.md). From the first on, hidden units in no order are
# sorted, at the price of a copy of the weights, instead of gathered by the kernels; with gradients, which gather twice more,
# from a tenth of it on, and from the third where that is no node of its own. Below the second a call of a layer that keeps what
# gradients need costs more on CPU than the library's own, whose code then runs; a call of a network alone below a quarter.
SORTED_FROM = 5e7
GRADIENTS_FROM = 2e7
CHAIN_SORTED_FROM = 1e6


class Arranged(NamedTuple):
    """A network as it runs: its plan, and the orders that the library's parameters are brought into.

    order: that of a network whose outputs are wanted as they lie side by side for each feature.
    pairs: the same with shift before scale.
    """

    network: MaskedNetwork
    plan: NetworkPlan
    order: Order
    pairs: Order


class Planned(NamedTuple):
    """A network that was read back: its layers, which of these have to be multiplied by their masks, and how it runs.

    places: where the parameters are, in order.
    """

    network: MaskedNetwork
    layers: Sequence[Any]
    loose: tuple[bool, ...]
    as_it_is: Arranged
    ordered: Arranged
    weights: int
    places: tuple[tuple[dict[str, Any], str], ...]

    @staticmethod
    def of(
        read: ReadNetwork,
        layers: Sequence[nn.Module],
        device: torch.device,
        rows: Tensor | None = None,
        pairs: Tensor | None = None,
    ) -> Planned:
        """A plan for the device.

        Args:
            layers: the library's, in order, with `weight`, `bias` and, where loose, `mask`.
            rows: which rows of its last layer are those of the network read, in order; None for all as they lie.
            pairs: which are those of shift and scale, side by side for each feature; None for all as they lie.
        """
        network, found = read.network, sort_network(read.network, device)

        def arranged(network: MaskedNetwork, order: Order) -> Arranged:
            last, plan = len(network.layers) - 1, make_network_plan(network, device)
            return Arranged(network, plan, *(order.with_ends(last, network.direct, rows=ends) for ends in (rows, pairs)))

        as_it_is = arranged(network, Order((), ()))
        ordered = as_it_is if found is None else arranged(*found)
        weights = sum(len(layer.in_degrees) * len(layer.out_degrees) for layer in network.layers)
        places = tuple((layer._parameters, name) for layer in layers for name in ("weight", "bias"))
        return Planned(network, layers, read.loose, as_it_is, ordered, weights, places)

    def pays(self, x: Tensor) -> bool:
        """Whether a pass over these rows is worth a call of fastgen's."""
        return pays(x, 4 * self.weights, parameter(self.layers[0], "weight"))

    def call(self, context_terms: Tensor | None = None) -> Call:
        """What one call takes: the parameters as they are now; `context_terms` (..., H) in the order of the library's units."""
        try:
            params = [place[name] for place, name in self.places]
        except KeyError:  # a parametrization computes it
            params = [getattr(layer, name) for layer in self.layers for name in ("weight", "bias")]
        for i, loose in enumerate(self.loose):
            if loose:
                params[2 * i] = params[2 * i] * self.layers[i].mask
        return Call(self, params, context_terms)


def pays(x: Tensor, weights: int, weight: Tensor) -> bool:
    """Whether rows x of a layer of so many weights, one of which is `weight`, are worth a call of fastgen's."""
    if x.is_cuda or x.dim() == 0 or x.numel() * weights >= GRADIENTS_FROM * x.shape[-1]:
        return True
    return not needs_gradients(x, weight)


def parameter(layer: Any, name: str) -> Any:
    """`getattr(layer, name)`, sooner."""
    found = layer._parameters.get(name)
    return getattr(layer, name) if found is None else found


class Call(NamedTuple):
    """A network with the parameters and the context of one call."""

    planned: Planned
    params: list[Tensor | None]
    context_terms: Tensor | None

    def outputs(self, x: Tensor) -> Tensor:
        """(..., D, P), in the order of the network read."""
        arranged = self._arranged(x)
        return masked_mlp(x, arranged.network, **self._given(arranged, arranged.order))

    def affine(self, x: Tensor, scale_map: ScaleMap) -> tuple[Tensor, Tensor]:
        """y = s x + t and sum log s: one pass of the network."""
        found = one_node(x, [self.part(x, scale_map)]) if x.dim() == 2 else None
        return self._transform(masked_autoregressive, x, scale_map) if found is None else found

    def part(self, x: Tensor, scale_map: ScaleMap) -> Part:
        """`affine` of rows x as a part of a chain."""
        planned, params, terms = self
        is_sorted = len(x) * planned.weights >= CHAIN_SORTED_FROM
        if terms is not None and terms.shape[:-1] != x.shape[:-1]:
            terms = terms.expand(len(x), -1)
        return Part(Block(planned.ordered if is_sorted else planned.as_it_is, scale_map), (terms, *params))

    def affine_inverse(self, y: Tensor, scale_map: ScaleMap) -> tuple[Tensor, Tensor]:
        """The x with y = s x + t, and -sum log s: at the price of one pass."""
        return self._transform(autoregressive_inverse, y, scale_map)

    def _transform(
        self, operation: Callable[..., tuple[Tensor, Tensor]], x: Tensor, scale_map: ScaleMap
    ) -> tuple[Tensor, Tensor]:
        arranged = self._arranged(x)
        given = self._given(arranged, arranged.pairs)
        y, log_det = operation(x, arranged.network, form="divide", scale_map=scale_map, **given)
        return y, log_det.to(x.dtype)

    def _given(self, arranged: Arranged, order: Order) -> dict[str, Any]:
        terms = None if self.context_terms is None else order.of_units(self.context_terms)
        return {"params": order.of(self.params), "context_terms": terms, "plan": arranged.plan}

    def _arranged(self, x: Tensor) -> Arranged:
        """What runs for these rows: the network as it is, or with its hidden units sorted."""
        planned, params, _ = self
        size = x.shape[:-1].numel() * planned.weights
        is_sorted = size >= (SORTED_FROM / 10 if needs_gradients(x, params[0]) else SORTED_FROM)
        return planned.ordered if is_sorted else planned.as_it_is


def interleaved(t: Tensor, features: int) -> Tensor:
    """Rows of a last layer that come in blocks, D of each kind, as rows that lie side by side for each feature."""
    return t.unflatten(0, (-1, features)).transpose(0, 1).flatten(0, 1)


# Maps from a raw scale to its logarithm that libraries use, for `affine_scale_map` to try.
SCALE_MAPS = (
    ScaleMap("softplus", eps=1e-3),
    ScaleMap("sigmoid", eps=1e-3),
    ScaleMap("sigmoid"),
    ScaleMap("softplus"),
    ScaleMap("soft_clip", c=math.log(1000)),
    ScaleMap("clamp_straight", lo=-5.0, hi=3.0),
    ScaleMap(),
)


def affine_scale_map(
    forward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    inverse: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    features: int,
    scale_maps: Sequence[ScaleMap] = SCALE_MAPS,
) -> ScaleMap | None:
    """Of these scale maps the one with which a library's own y = s x + t and its inverse agree; None where none does.

    Both are called with x (or y), shift and raw scale, float64 (rows, features), and answer with the result and log|det|.
    """
    raw = torch.linspace(-9, 9, 19, dtype=torch.float64)[:, None].expand(-1, features).contiguous()
    shift, x = (3 * raw).cos(), (5 * raw).sin() + 0.1
    for scale_map in scale_maps:
        there = affine_autoregressive(x, shift, raw, inverse=True, scale_map=scale_map)
        back = affine_autoregressive(x, shift, raw, scale_map=scale_map)
        if close(forward(x, shift, raw), there) and close(inverse(x, shift, raw), back):
            return scale_map
    return None


def close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether results agree to rounding, of one call in two ways."""
    tolerance = 1e-9 if expected[0].dtype == torch.float64 else 1e-4
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )
