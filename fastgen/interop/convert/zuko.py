"""Flows of zuko. Their transforms go from data to noise, as here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from zuko.distributions import DiagNormal
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow as ZFlow
from zuko.lazy import LazyComposedTransform, LazyInverse, UnconditionalDistribution, UnconditionalTransform
from zuko.nn import MLP, MaskedMLP, Residual
from zuko.nn import Linear as ZLinear
from zuko.nn import MaskedLinear as ZMaskedLinear
from zuko.transforms import AdditiveTransform, MonotonicAffineTransform, PermutationTransform

from ... import flows
from ...ops import ScaleMap
from .parts import (
    Linear,
    activation_of,
    assembled,
    blocked,
    converted,
    coupling,
    look_up,
    masked_autoregressive,
    mlp,
    normal,
    refusal,
    sequential,
)


def convert(model: ZFlow) -> flows.Flow:
    if not isinstance(model, ZFlow):
        raise TypeError(f"model: expected a flow of zuko, found {type(model).__name__}")
    base = look_up(model.base, {UnconditionalDistribution: _normal})
    numbers = (t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return assembled(base, converted([model.transform], _layer, "transform"), next(numbers), model.training)


def _normal(base: UnconditionalDistribution) -> flows.Distribution:
    if base.f is not DiagNormal:
        raise refusal(base, "expected a DiagNormal")
    found = base()
    mean, scale = found.base_dist.loc, found.base_dist.scale
    return normal(mean, scale.log(), trained=any(True for _ in base.parameters()))


def _layer(layer: Any) -> Sequence[flows.Transform]:
    supported: dict[type, Callable[[Any], Sequence[flows.Transform]]] = {
        LazyComposedTransform: lambda t: converted(t.transforms, _layer, "transforms"),
        LazyInverse: lambda t: [flows.Inverse(flows.Composed(_layer(t.transform)))],
        MaskedAutoregressiveTransform: _autoregressive,
        GeneralCouplingTransform: _coupling,
        UnconditionalTransform: _permutation,
    }
    return look_up(layer, supported)


def _autoregressive(layer: MaskedAutoregressiveTransform) -> Sequence[flows.Transform]:
    scale_map = _scale_map(layer)
    if scale_map is None:
        raise refusal(layer, "expected an affine univariate transform, found one without a scale")
    layers = _masked_layers(layer.hyper, layer)
    features = layers[-1].weight.shape[0] // 2
    context = _context(layers, features)
    return [masked_autoregressive(layers, scale_map=scale_map, context=context)]


def _context(layers: list[Linear], features: int) -> Linear | None:
    """Takes the context's columns, the last, out of the first layer."""
    first = layers[0]
    layers[0] = first.columns(slice(features))
    return first.context(slice(features, None)) if first.weight.shape[1] > features else None


def _masked_layers(network: MaskedMLP, owner: Any) -> list[Linear]:
    layers: list[Linear] = []
    for module in network:
        if isinstance(module, ZMaskedLinear):
            layers.append(Linear.of(module))
        elif isinstance(module, Residual):
            inner, activation, outer = module
            stream = len(layers) - 1
            layers += [Linear.of(inner, activation_of(activation, owner)), Linear.of(outer, residual=stream)]
        else:
            layers[-1] = layers[-1]._replace(activation=activation_of(module, owner))
    return layers


def _coupling(layer: GeneralCouplingTransform) -> Sequence[flows.Transform]:
    scale_map = _scale_map(layer)
    if type(layer.hyper) is not MLP:
        raise refusal(layer, f"expected an MLP as its network, found {type(layer.hyper).__name__}")
    mask = ~layer.mask.cpu()
    layers = sequential(layer.hyper, (ZLinear,), layer)
    context = _context(layers, int((~mask).sum()))
    if scale_map is not None:
        layers[-1] = layers[-1].rows(blocked(int(mask.sum())))
    return [coupling(mask, mlp(layers, layer, context), scale_map)]


def _scale_map(layer: Any) -> ScaleMap | None:
    """That of an affine univariate transform; None for an additive one."""
    univariate: Any = layer.univariate
    options: dict[str, Any] = {}
    if isinstance(univariate, partial) and not univariate.args:
        univariate, options = univariate.func, univariate.keywords
    if univariate is AdditiveTransform and not options and layer.total == 1:
        return None
    if univariate is MonotonicAffineTransform and options.keys() <= {"slope"} and layer.total == 2:
        return ScaleMap("soft_clip", c=abs(math.log(options.get("slope", 1e-3))))
    name = getattr(univariate, "__name__", type(univariate).__name__)
    raise refusal(layer, f"expected a MonotonicAffineTransform or an AdditiveTransform for each feature, found {name}")


def _permutation(layer: UnconditionalTransform) -> Sequence[flows.Transform]:
    if layer.f is not PermutationTransform:
        raise refusal(layer, f"expected a PermutationTransform, found {getattr(layer.f, '__name__', layer.f)}")
    order: Tensor = layer().order
    return [flows.Permutation(order)]
