"""Autoregressive networks to invert, and what an inverse gives for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from networks import network, parameters
from torch import Tensor

from fastgen import reference
from fastgen.reference import MaskedLayer, MaskedNetwork, ScaleMap

SOFT_CLIP = ScaleMap("soft_clip", c=2.0)
ORDER = (3, 1, 4, 2, 7, 5, 6)
NETWORKS = {
    "plain": network(range(1, 8), (33, 40), lo=1),
    "reversed": network(range(7, 0, -1), (33, 40)),
    "any order": network(ORDER, (33, 40)),
    "one feature": network((1,), (5, 3)),
    "no hidden layer": network(ORDER, ()),
    "one unit": network(range(1, 8), (1, 1)),
    "direct": network(ORDER, (40,), direct=True),
    "direct alone": network(ORDER, (), direct=True),
    "residual": network(range(1, 8), (33,) * 5, residual=True),
    "residual and direct": network(ORDER, (20,) * 3, residual=True, direct=True),
    "more features than a block": network(range(1, 40), (130, 57)),
    "fewer units than features": network(range(1, 40), (7, 5)),
}


def case(net: MaskedNetwork, rows: int, context: bool, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    """w, context_terms or None, log_det, and the parameters."""
    generator = torch.Generator().manual_seed(rows)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    terms = draw(rows, len(net.layers[0].out_degrees))
    return [draw(rows, net.features), terms if context else None, draw(rows), *parameters(net, dtype)]


def call(function, net: MaskedNetwork, given: Sequence[Tensor | None], **options):  # type: ignore[no-untyped-def]
    w, terms, log_det, *params = given
    options = {"scale_map": SOFT_CLIP, **options}
    return function(w, net, params, context_terms=terms, log_det=log_det, **options)


def results(function, net: MaskedNetwork, given: Sequence[Tensor | None], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The outputs and all gradients for gradients that differ from element to element."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    outputs = call(function, net, leaves, **options)
    grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype, device=y.device).view_as(y) for y in outputs]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, [t for t in leaves if t is not None], grads)]


@st.composite
def networks(draw) -> MaskedNetwork:  # type: ignore[no-untyped-def]
    features = draw(st.integers(1, 12))
    order = draw(st.permutations(range(1, features + 1)))
    residual = draw(st.booleans())
    depth = draw(st.integers(0, 2)) * 2 + 1 if residual else draw(st.integers(0, 3))
    widths = draw(st.lists(st.integers(1, 20), min_size=depth, max_size=depth))
    widths = widths[:1] * depth if residual else widths
    activation = draw(st.sampled_from(sorted(reference.ACTIVATIONS)))
    net = network(order, widths, activation=activation, direct=draw(st.booleans()), residual=residual)
    return _shuffled(net, draw(st.randoms(use_true_random=False))) if draw(st.booleans()) and not residual else net


def _shuffled(net: MaskedNetwork, rng) -> MaskedNetwork:  # type: ignore[no-untyped-def]
    """The network with the degrees of its hidden units drawn at random, in no order."""
    layers, into = [], net.layers[0].in_degrees
    for layer in net.layers[:-1]:
        units = tuple(rng.randrange(net.features) for _ in layer.out_degrees)
        layers.append(MaskedLayer(into, units, activation=layer.activation))
        into = units
    layers.append(MaskedLayer(into, net.layers[-1].out_degrees, strict=True))
    return MaskedNetwork(tuple(layers), net.direct, net.outputs)
