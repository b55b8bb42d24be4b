"""Autoregressive densities to sample from, and random numbers for them."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import strategies as st
from networks import network, parameters
from torch import Tensor

from fastgen import reference
from fastgen.reference import ConditionalSampler, MaskedLayer, MaskedNetwork, ScaleMap

SOFT_CLIP = ScaleMap("soft_clip", c=2.0)
SAMPLERS = {
    "bernoulli": ConditionalSampler("bernoulli"),
    "categorical": ConditionalSampler("categorical", 5),
    "one category": ConditionalSampler("categorical"),
    "gaussian": ConditionalSampler("gaussian", scale_map=SOFT_CLIP),
    "mixture": ConditionalSampler("mixture", 4, SOFT_CLIP),
    "one component": ConditionalSampler("mixture", 1, SOFT_CLIP),
}
ORDER = (3, 1, 4, 2, 7, 5, 6)
NETWORKS = {
    "plain": {"order": tuple(range(1, 8)), "hidden": (33, 40), "lo": 1},
    "any order": {"order": ORDER, "hidden": (33, 40)},
    "one feature": {"order": (1,), "hidden": (5, 3)},
    "no hidden layer": {"order": ORDER, "hidden": ()},
    "direct": {"order": ORDER, "hidden": (40,), "direct": True},
    "residual and direct": {"order": ORDER, "hidden": (20,) * 3, "residual": True, "direct": True},
    "more features than a block": {"order": tuple(range(1, 22)), "hidden": (70, 57)},
    "fewer units than features": {"order": tuple(range(21, 0, -1)), "hidden": (7, 5)},
}


def network_for(sampler: ConditionalSampler, order, hidden, **options) -> MaskedNetwork:  # type: ignore[no-untyped-def]
    return network(order, hidden, outputs=sampler.outputs, inputs=sampler.inputs, **options)


def case(
    sampler: ConditionalSampler, net: MaskedNetwork, *batch: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Noise, context_terms, values that features may have, and parameters that make far from equal odds."""
    generator = torch.Generator().manual_seed(sum(batch))
    features = net.features // sampler.inputs
    noise = torch.rand(*batch, features, sampler.numbers, generator=generator, dtype=torch.float64)
    terms = torch.randn(*batch, len(net.layers[0].out_degrees), generator=generator, dtype=torch.float64)
    values = torch.randint(sampler.size + 1, (*batch, features), generator=generator)
    params = [2 * p for p in parameters(net, dtype)]
    return noise.to(dtype), terms.to(dtype), values.to(dtype), params


@st.composite
def cases(draw):  # type: ignore[no-untyped-def]
    kind = draw(st.sampled_from(["bernoulli", "categorical", "gaussian", "mixture"]))
    size = draw(st.integers(1, 9)) if kind in ("categorical", "mixture") else 1
    sampler = ConditionalSampler(kind, size, SOFT_CLIP)
    features = draw(st.integers(1, 12))
    residual = draw(st.booleans())
    depth = draw(st.integers(0, 2)) * 2 + 1 if residual else draw(st.integers(0, 3))
    widths = draw(st.lists(st.integers(1, 20), min_size=depth, max_size=depth))
    net = network_for(
        sampler,
        draw(st.permutations(range(1, features + 1))),
        widths[:1] * depth if residual else widths,
        activation=draw(st.sampled_from(sorted(reference.ACTIVATIONS))),
        direct=draw(st.booleans()),
        residual=residual,
    )
    if draw(st.booleans()) and not residual:
        net = _shuffled(net, features, draw(st.randoms(use_true_random=False)))
    return sampler, net, draw(st.integers(0, features))


def _shuffled(net: MaskedNetwork, features: int, rng) -> MaskedNetwork:  # type: ignore[no-untyped-def]
    """The network with the degrees of its hidden units drawn at random, in no order."""
    levels = [net.layers[0].in_degrees, *(tuple(rng.randrange(features) for _ in la.out_degrees) for la in net.layers[:-1])]
    layers = [MaskedLayer(a, b, activation=la.activation) for a, b, la in zip(levels, levels[1:], net.layers, strict=False)]
    return dataclasses.replace(net, layers=(*layers, dataclasses.replace(net.layers[-1], in_degrees=levels[-1])))


INF, NAN = torch.inf, torch.nan
LOGITS = [
    [1e4, 0.0, -1e4, 0.0],
    [-1e4, -1e4, -1e4, -1e4],
    [1e4, 1e4, 1e4, 1e4],
    [-INF, 0.0, -INF, 0.0],
    [-INF, -INF, -INF, 2.0],
    [-INF, -INF, -INF, -INF],
    [INF, 0.0, 0.0, 0.0],
    [0.0, 0.0, INF, 0.0],
    [0.0, INF, INF, 0.0],
    [NAN, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, NAN],
    [NAN, NAN, NAN, NAN],
]
NOISE = [0.0, 1e-9, 0.3, 0.5, 0.999, 1 - 2**-24, 1.0, 2.0, -1.0, INF, -INF, NAN]


def extremes(sampler: ConditionalSampler, dtype: torch.dtype) -> tuple[MaskedNetwork, list[Tensor | None], Tensor, Tensor]:
    """A feature without inputs, its parameters, its outputs as a context's terms, and noise: every pair of those above."""
    net = network_for(sampler, (1,), ())
    logits = torch.tensor(LOGITS, dtype=dtype).repeat_interleave(len(NOISE), 0)
    if sampler.kind == "bernoulli":
        logits = logits[:, :1]
    if sampler.kind == "mixture":
        means = torch.arange(4, dtype=dtype).expand(len(logits), 4)
        logits = torch.cat([logits, means, torch.full_like(means, -3.0)], 1)
    noise = torch.tensor(NOISE, dtype=dtype).repeat(len(LOGITS))[:, None]
    noise = noise if sampler.kind != "mixture" else torch.stack([noise, torch.zeros_like(noise)], -1)
    params = [torch.zeros(sampler.outputs, sampler.inputs, dtype=dtype), None]
    return net, params, logits, noise.view(-1, 1, sampler.numbers)
