"""Sequences of FrEIA's couplings, from data to noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import (
    AffineCouplingOneSided,
    GLOWCouplingBlock,
    NICECouplingBlock,
    PermuteRandom,
    RNVPCouplingBlock,
)
from torch import Tensor, nn

from ... import flows
from ...nn import Joined
from ...ops import ScaleMap
from .parts import Linear, assembled, converted, coupling, look_up, mlp, refusal, sequential


def convert(model: SequenceINN) -> flows.Flow:
    if type(model) is not SequenceINN:
        raise TypeError(f"model: expected a SequenceINN of FrEIA, found {type(model).__name__}")
    if len(model.shapes[0]) != 1 or any(condition is not None for condition in model.conditions):
        raise TypeError("model: expected a SequenceINN of vectors without conditions")
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    base = flows.StandardNormal(math.prod(model.shapes[0]))
    return assembled(base, converted(model.module_list, _layer, "module_list"), like, model.training)


def _layer(layer: Any) -> Sequence[flows.Transform]:
    supported: dict[type, Callable[[Any], Sequence[flows.Transform]]] = {
        # The first half is mapped given the second, and then the second given the first as it is now.
        RNVPCouplingBlock: lambda t: [
            _joined(t, t.subnet_t2, t.subnet_s2, first=True),
            _joined(t, t.subnet_t1, t.subnet_s1, first=False),
        ],
        GLOWCouplingBlock: lambda t: [_affine(t, t.subnet2, first=True), _affine(t, t.subnet1, first=False)],
        AffineCouplingOneSided: lambda t: [_affine(t, t.subnet, first=False)],
        NICECouplingBlock: lambda t: [_additive(t, t.F, first=True), _additive(t, t.G, first=False)],
        PermuteRandom: lambda t: [flows.Permutation(t.perm)],
    }
    return look_up(layer, supported)


def _mask(layer: Any, first: bool) -> Tensor:
    leading = torch.arange(layer.channels) < layer.split_len1
    return leading if first else ~leading


def _layers(network: nn.Module, owner: Any) -> list[Linear]:
    if type(network) is not nn.Sequential:
        raise refusal(owner, f"expected a Sequential as its subnetwork, found {type(network).__name__}")
    return sequential(network, (nn.Linear,), owner)


def _additive(layer: Any, network: nn.Module, first: bool) -> flows.Transform:
    return coupling(_mask(layer, first), mlp(_layers(network, layer), layer), None)


def _affine(layer: Any, network: nn.Module, first: bool) -> flows.Transform:
    mask = _mask(layer, first)
    n = int(mask.sum())
    layers = _layers(network, layer)
    # They answer with scale and shift.
    *hidden, last = layers
    last = last.rows(torch.arange(2 * n).roll(-n))
    clamp, stretch = _clamp(layer)
    return coupling(mask, mlp([*hidden, _stretched(last, stretch, n)], layer), clamp)


def _joined(layer: Any, shift: nn.Module, scale: nn.Module, first: bool) -> flows.Transform:
    clamp, stretch = _clamp(layer)
    *hidden, last = _layers(scale, layer)
    networks = [mlp(_layers(shift, layer), layer), mlp([*hidden, _stretched(last, stretch, 0)], layer)]
    return coupling(_mask(layer, first), Joined(networks), clamp)


def _stretched(last: Linear, stretch: float, start: int) -> Linear:
    """The last layer with its raw scales, from output `start` on, multiplied."""
    factor = torch.ones_like(last.weight[:, 0])
    factor[start:] = stretch
    return last._replace(weight=last.weight * factor[:, None], bias=None if last.bias is None else last.bias * factor)


def _clamp(layer: Any) -> tuple[ScaleMap, float]:
    """The map c tanh(a / c), and what a raw scale is to be multiplied by to be its a."""
    u = torch.linspace(-4, 4, 17, dtype=torch.float64)
    found = layer.f_clamp(u)
    for slope in (1.0, 0.5):
        if torch.allclose(found, (slope * u).tanh(), rtol=1e-12, atol=1e-12):
            return ScaleMap("tanh", c=layer.clamp), slope * layer.clamp
    raise refusal(layer, "expected clamp_activation 'TANH' or 'SIGMOID', found another, as FrEIA's own arctangent is")
