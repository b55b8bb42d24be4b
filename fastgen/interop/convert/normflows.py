"""Flows of normflows. Their layers go from noise to data, and the list of them too: here it is turned around."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from normflows.core import ConditionalNormalizingFlow, NormalizingFlow
from normflows.distributions.base import DiagGaussian
from normflows.flows.affine.autoregressive import MaskedAffineAutoregressive
from normflows.flows.affine.coupling import AffineConstFlow, AffineCoupling, AffineCouplingBlock, MaskedAffineFlow
from normflows.flows.base import Composite, Reverse
from normflows.flows.mixing import Permute
from normflows.flows.normalization import ActNorm
from normflows.nets.mlp import MLP
from torch import nn

from ... import flows
from ...nn import Joined
from ...ops import ScaleMap
from .made import made_layers, scale_map_of
from .parts import (
    Linear,
    assembled,
    backwards,
    blocked,
    converted,
    coupling,
    look_up,
    masked_autoregressive,
    mlp,
    normal,
    refusal,
    scaling,
    sequential,
)

# Of the forward direction, noise to data: y = x e^s + t.
_SCALE_MAPS = {"exp": ScaleMap(), "sigmoid_inv": ScaleMap("sigmoid")}


def convert(model: NormalizingFlow) -> flows.Flow:
    if type(model) not in (NormalizingFlow, ConditionalNormalizingFlow):
        raise TypeError(f"model: expected a NormalizingFlow of normflows, found {type(model).__name__}")
    base = look_up(model.q0, {DiagGaussian: _gaussian})
    features = base.features
    from_noise = converted(model.flows, lambda layer: _layer(layer, features), "flows")
    return assembled(base, backwards(from_noise), model.q0.loc, model.training)


def _gaussian(base: DiagGaussian) -> flows.Distribution:
    if base.n_dim != 1 or base.temperature is not None:
        raise refusal(base, "expected vectors at no temperature")
    return normal(base.loc.flatten(), base.log_scale.flatten(), trained=isinstance(base.loc, nn.Parameter))


def _layer(layer: Any, features: int) -> Sequence[flows.Transform]:
    supported: dict[type, Callable[[Any], Sequence[flows.Transform]]] = {
        Reverse: lambda t: backwards(_layer(t.flow, features)),
        Composite: lambda t: converted(t._flows, lambda part: _layer(part, features), "_flows"),
        MaskedAffineAutoregressive: _autoregressive,
        MaskedAffineFlow: _masked_coupling,
        AffineCouplingBlock: lambda t: _coupling_block(t, features),
        Permute: _permutation,
        AffineConstFlow: _constant,
        ActNorm: _constant,
    }
    return look_up(layer, supported)


def _autoregressive(layer: MaskedAffineAutoregressive) -> Sequence[flows.Transform]:
    made = layer.autoregressive_net
    if not isinstance(made.preprocessing, nn.Identity):
        raise refusal(layer, "expected no preprocessing inside its network")
    layers, context = made_layers(made, first_active=False)
    return [masked_autoregressive(layers, scale_map=scale_map_of(layer), context=context)]


def _masked_coupling(layer: MaskedAffineFlow) -> Sequence[flows.Transform]:
    mask = layer.b.flatten() == 0
    nets = [layer.t, layer.s]
    if layer.b.dim() != 2 or not torch.equal(layer.b.flatten(), (~mask).to(layer.b)):
        raise refusal(layer, "expected a mask of vectors, zeros and ones")
    if not isinstance(layer.t, nn.Module):
        raise refusal(layer, "expected a network of translations, found none")
    # Their networks see all features, zero where they are mapped, and answer for all.
    parts = [mlp(_on(network, mask, layer), layer) for network in nets if isinstance(network, nn.Module)]
    affine = len(parts) == 2
    return [coupling(mask.cpu(), Joined(parts) if affine else parts[0], ScaleMap() if affine else None)]


def _on(network: nn.Module, mask: torch.Tensor, owner: Any) -> list[Linear]:
    layers = _layers(network, owner)
    layers[0] = layers[0].columns(~mask)
    layers[-1] = layers[-1].rows(mask.nonzero().flatten())
    return layers


def _layers(network: Any, owner: Any) -> list[Linear]:
    if type(network) is not MLP:
        raise refusal(owner, f"expected an MLP as its network, found {type(network).__name__}")
    return sequential(network.net, (nn.Linear,), owner)


def _coupling_block(layer: AffineCouplingBlock, features: int) -> Sequence[flows.Transform]:
    split, inner, _ = layer.flows
    if split.mode not in ("channel", "channel_inv") or type(inner) is not AffineCoupling:
        raise refusal(layer, f"expected split_mode 'channel' or 'channel_inv', found {split.mode!r}")
    first = torch.arange(features) < (features + 1) // 2
    mask = ~first if split.mode == "channel" else first
    layers = _layers(inner.param_map, layer)
    if not inner.scale:
        return [coupling(mask, mlp(layers, layer), None)]
    if inner.scale_map not in _SCALE_MAPS:
        raise refusal(layer, f"expected scale_map 'exp' or 'sigmoid_inv', found {inner.scale_map!r}, which divides by it")
    layers[-1] = layers[-1].rows(blocked(int(mask.sum())))
    return [coupling(mask, mlp(layers, layer), _SCALE_MAPS[inner.scale_map])]


def _permutation(layer: Permute) -> Sequence[flows.Transform]:
    if layer.mode == "shuffle":
        return [flows.Permutation(layer.perm)]
    return [flows.Permutation(torch.arange(layer.num_channels).roll(-(layer.num_channels // 2)))]


def _constant(layer: AffineConstFlow) -> Sequence[flows.Transform]:
    if layer.s.dim() != 2:
        raise refusal(layer, "expected one of vectors")
    if isinstance(layer, ActNorm) and not layer.data_dep_init_done > 0:
        raise refusal(layer, "expected one that has seen its first batch, found one that has not")
    return [scaling(layer.s.flatten(), layer.t.flatten())]
