"""Flows of nflows. Their transforms go from data to noise, as here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from nflows.distributions.normal import DiagonalNormal, StandardNormal
from nflows.flows.base import Flow as NFlow
from nflows.nn.nets.resnet import ResidualNet
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import CompositeTransform, InverseTransform
from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform
from nflows.transforms.normalization import ActNorm, BatchNorm
from nflows.transforms.permutations import Permutation, RandomPermutation, ReversePermutation
from nflows.transforms.standard import AffineTransform, IdentityTransform, PointwiseAffineTransform
from torch import nn

from ... import flows
from ...nn import ResidualMLP
from ...ops import ScaleMap
from ..nflows import AffineCouplingTransform as FastCoupling
from .made import made_layers, scale_map_of
from .parts import (
    Linear,
    activation_of,
    assembled,
    batch_norm,
    converted,
    coupling,
    fill,
    look_up,
    masked_autoregressive,
    normal,
    refusal,
    scaling,
)


def convert(model: NFlow) -> flows.Flow:
    if not isinstance(model, NFlow):
        raise TypeError(f"model: expected a flow of nflows, found {type(model).__name__}")
    like = next((t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()), torch.empty(0))
    base = look_up(model._distribution, {StandardNormal: _standard, DiagonalNormal: _diagonal})
    features = base.features
    transforms = converted([model._transform], lambda layer: _layer(layer, features), "_transform")
    embedding = model._embedding_net
    network = None if isinstance(embedding, nn.Identity) else copy.deepcopy(embedding)
    return assembled(base, transforms, like, model.training, embedding=network)


def _standard(base: StandardNormal) -> flows.Distribution:
    return flows.StandardNormal(math.prod(base._shape))


def _diagonal(base: DiagonalNormal) -> flows.Distribution:
    return normal(base.mean_.flatten(), base.log_std_.flatten(), trained=True)


def _layer(layer: Any, features: int) -> Sequence[flows.Transform]:
    supported: dict[type, Callable[[Any], Sequence[flows.Transform]]] = {
        CompositeTransform: lambda t: converted(t._transforms, lambda part: _layer(part, features), "_transforms"),
        InverseTransform: lambda t: [flows.Inverse(flows.Composed(_layer(t._transform, features)))],
        MaskedAffineAutoregressiveTransform: _autoregressive,
        AffineCouplingTransform: _coupling,
        AdditiveCouplingTransform: _coupling,
        Permutation: _permutation,
        RandomPermutation: _permutation,
        ReversePermutation: _permutation,
        BatchNorm: _batch_norm,
        ActNorm: _act_norm,
        PointwiseAffineTransform: lambda t: _fixed(t, features),
        AffineTransform: lambda t: _fixed(t, features),
        IdentityTransform: lambda t: [],
    }
    return look_up(layer, supported)


def _autoregressive(layer: MaskedAffineAutoregressiveTransform) -> Sequence[flows.Transform]:
    layers, context = made_layers(layer.autoregressive_net, first_active=not layer.autoregressive_net.use_residual_blocks)
    if context is not None:
        context = context._replace(activation=activation_of(layer.autoregressive_net.activation, layer))
    return [masked_autoregressive(layers, scale_map=scale_map_of(layer), context=context)]


def _coupling(layer: AffineCouplingTransform) -> Sequence[flows.Transform]:
    if layer.unconditional_transform is not None:
        raise refusal(layer, "expected no unconditional_transform, which maps the entries that pass")
    mask = torch.zeros(layer.features, dtype=torch.bool)
    mask[layer.transform_features.cpu()] = True
    additive = isinstance(layer, AdditiveCouplingTransform)
    return [coupling(mask, _residual_net(layer.transform_net, layer), None if additive else _coupling_scale_map(layer))]


def _coupling_scale_map(layer: AffineCouplingTransform) -> ScaleMap:
    """The map that a coupling's own formula shows, whatever its version."""
    found = FastCoupling._scale_map(layer)
    if found is None:
        raise refusal(layer, "expected a scale of sigmoid(u + 2) + 1e-3 or softplus(u) + 1e-3, found another")
    return found


def _residual_net(network: Any, owner: Any) -> ResidualMLP:
    if type(network) is not ResidualNet:
        raise refusal(owner, f"expected a ResidualNet as its network, found {type(network).__name__}")
    if network.context_features is not None:
        raise refusal(owner, "expected a network without a context, found one that gates its residual blocks by it")
    blocks = list(network.blocks)
    if not blocks or any(block.use_batch_norm for block in blocks):
        raise refusal(owner, "expected residual blocks without batch norm inside")
    activations = {activation_of(block.activation, owner) for block in blocks}
    if len(activations) > 1:
        raise refusal(owner, f"expected one activation in all residual blocks, found {sorted(activations)}")
    first, last = network.initial_layer, network.final_layer
    ours = ResidualMLP(
        first.in_features,
        last.out_features,
        hidden_features=[first.out_features] * len(blocks),
        activation=activations.pop(),
        device=first.weight.device,
        dtype=first.weight.dtype,
    )
    fill(ours.first, Linear.of(first))
    fill(ours.last, Linear.of(last))
    for block, pair in zip(blocks, ours.blocks, strict=True):
        for source, target in zip(block.linear_layers, pair, strict=True):
            fill(target, Linear.of(source))
    return ours


def _permutation(layer: Permutation) -> Sequence[flows.Transform]:
    if layer._dim != 1:
        raise refusal(layer, f"expected dim 1, that of features, found {layer._dim}")
    return [flows.Permutation(layer._permutation)]


def _batch_norm(layer: BatchNorm) -> Sequence[flows.Transform]:
    numbers = layer.weight.log(), layer.bias, layer.running_mean, layer.running_var
    return [batch_norm(*numbers, momentum=layer.momentum, eps=layer.eps)]


def _act_norm(layer: ActNorm) -> Sequence[flows.Transform]:
    if not layer.initialized:
        raise refusal(layer, "expected one that has seen its first batch, found one that has not")
    return [scaling(layer.log_scale, layer.shift)]


@torch.no_grad()
def _fixed(layer: PointwiseAffineTransform, features: int) -> Sequence[flows.Transform]:
    ours = flows.Standardise(features).to(layer._scale)
    ours.mean.copy_(-layer._shift / layer._scale)
    ours.std.copy_(1 / layer._scale)
    return [ours]
