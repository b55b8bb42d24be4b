"""Flows of Pyro: distributions whose transforms go from noise to data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import conditional
from pyro.distributions.transforms import (
    AffineAutoregressive,
    AffineCoupling,
    BatchNorm,
    ConditionalAffineAutoregressive,
    ConditionalAffineCoupling,
    Permute,
)
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN, ConditionalDenseNN, DenseNN
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform, _InverseTransform

from ... import flows
from ...ops import ScaleMap
from ..network import interleaved
from .parts import (
    Linear,
    activation_of,
    assembled,
    backwards,
    batch_norm,
    converted,
    coupling,
    masked_autoregressive,
    mlp,
    normal,
    refusal,
    unknown,
)


def convert(distribution: Any) -> flows.Flow:
    if not isinstance(distribution, TransformedDistribution | conditional.ConditionalTransformedDistribution):
        expected = "a TransformedDistribution or ConditionalTransformedDistribution"
        raise TypeError(f"distribution: expected {expected}, found {type(distribution).__name__}")
    base, like = _base(distribution.base_dist)
    from_noise = converted(distribution.transforms, _layer, "transforms")
    modules = [t for t in distribution.transforms if isinstance(t, nn.Module)]
    training = any(module.training for module in modules)
    return assembled(base, backwards(from_noise), like, training)


def _base(base: Any) -> tuple[flows.Distribution, torch.Tensor]:
    if isinstance(base, conditional.ConstantConditionalDistribution):
        base = base.base_dist
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal) or base.loc.dim() != 1:
        shape = getattr(base, "batch_shape", None)
        raise refusal(base, f"expected a Normal of one row of features as base_dist, found batch shape {shape}")
    return normal(base.loc, base.scale.log(), trained=base.loc.requires_grad or base.scale.requires_grad), base.loc


def _layer(layer: Any) -> Sequence[flows.Transform]:
    supported: dict[type, Callable[[Any], Sequence[flows.Transform]]] = {
        _InverseTransform: lambda t: backwards(_layer(t.inv)),
        conditional._ConditionalInverseTransformModule: lambda t: backwards(_layer(t.inv)),
        conditional.ConstantConditionalTransform: _constant,
        conditional.ConditionalComposeTransformModule: lambda t: converted(t.transforms, _layer, "transforms"),
        ComposeTransform: lambda t: converted(t.parts, _layer, "parts"),
        AffineAutoregressive: _autoregressive,
        ConditionalAffineAutoregressive: lambda t: _autoregressive(AffineAutoregressive(t.nn, **t.kwargs)),
        AffineCoupling: _coupling,
        ConditionalAffineCoupling: lambda t: _coupling(AffineCoupling(t.split_dim, t.nn, **t.kwargs)),
        Permute: _permutation,
        BatchNorm: _batch_norm,
    }
    for kind in type(layer).__mro__ if isinstance(layer, ComposeTransform) else (type(layer),):
        if kind in supported:
            return supported[kind](layer)
    raise unknown(layer, supported)


def _constant(layer: Any) -> Sequence[flows.Transform]:
    found = _layer(layer.transform)
    return [t if isinstance(t, flows.Permutation) else flows.Unconditional(t) for t in found]


def _clip(layer: Any) -> ScaleMap:
    return ScaleMap("clamp_straight", lo=layer.log_scale_min_clip, hi=layer.log_scale_max_clip)


def _autoregressive(layer: AffineAutoregressive) -> Sequence[flows.Transform]:
    network = layer.arn
    if layer.stable:
        raise refusal(layer, "expected stable=False, found the stable form, whose shift is the network's times 1 - scale")
    if type(network) not in (AutoRegressiveNN, ConditionalAutoRegressiveNN):
        raise refusal(layer, f"expected an (unconditioned) AutoRegressiveNN, found {type(network).__name__}")
    if list(network.param_dims) != [1, 1]:
        raise refusal(layer, f"expected param_dims [1, 1], found {list(network.param_dims)}")
    activation, width, features = activation_of(network.f, layer), network.context_dim, network.input_dim
    *hidden, last = network.layers
    pairs = interleaved(torch.arange(2 * features), features)
    layers = [*(Linear.of(each, activation) for each in hidden), Linear.of(last).rows(pairs)]
    context = layers[0].context(slice(width)) if width else None
    layers[0] = layers[0].columns(slice(width, None))
    direct = network.skip_layer
    if direct is not None and width:
        raise refusal(layer, "expected no skip connections with a context, which reach the outputs past the first layer")
    skip = None if direct is None else Linear.of(direct).rows(pairs)
    return [masked_autoregressive(layers, scale_map=_clip(layer), direct=skip, context=context)]


def _coupling(layer: AffineCoupling) -> Sequence[flows.Transform]:
    network = layer.nn
    if layer.dim != -1 or type(network) not in (DenseNN, ConditionalDenseNN):
        raise refusal(layer, f"expected dim -1 and a DenseNN, found {layer.dim} and {type(network).__name__}")
    transformed = network.param_dims[0]
    if list(network.param_dims) != [transformed] * 2 or network.input_dim != layer.split_dim:
        raise refusal(layer, f"expected a mean and a log-scale from {layer.split_dim} features, found {network.param_dims}")
    activation, width = activation_of(network.f, layer), network.context_dim
    *hidden, last = network.layers
    layers = [*(Linear.of(each, activation) for each in hidden), Linear.of(last)]
    context = layers[0].context(slice(width)) if width else None
    layers[0] = layers[0].columns(slice(width, None))
    mask = torch.arange(layer.split_dim + transformed) >= layer.split_dim
    return [coupling(mask, mlp(layers, layer, context), _clip(layer))]


def _permutation(layer: Permute) -> Sequence[flows.Transform]:
    if layer.dim != -1:
        raise refusal(layer, f"expected dim -1, that of features, found {layer.dim}")
    return [flows.Permutation(layer.permutation)]


def _batch_norm(layer: Any) -> Sequence[flows.Transform]:
    # Its inverse, data to noise, is what normalises.
    numbers = layer.constrained_gamma.log(), layer.beta, layer.moving_mean, layer.moving_variance
    return [flows.Inverse(batch_norm(*numbers, momentum=layer.momentum, eps=layer.epsilon))]
