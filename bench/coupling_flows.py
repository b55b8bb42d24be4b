"""Coupling flows: a training step and a density evaluation of RealNVP on vectors, beside other libraries.

Each library has its own map to log-scales; fastgen takes that of the library it is measured against, and its weights.

Work: that of the networks' matrix products, once forward and twice backward, the last without the gradient of the data; a
step also reads weights, gradients and Adam's two moments and writes weights and moments.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fastgen import flows
from fastgen.flows import AffineCoupling
from fastgen.nn import MLP
from fastgen.ops import ScaleMap

from .case import OURS, Case, Setting, Work, relative_error
from .steps import evaluation, training_step, value_and_gradients

OPERATION = "RealNVP"
BATCH, FEATURES, HIDDEN, TRANSFORMS = 1024, 64, (256, 256), 8
SHAPE = f"{BATCH} x {FEATURES}, {TRANSFORMS} x hidden {HIDDEN[0]} x {len(HIDDEN)}"
STEP_TARGET = 1.12
# So few that rounding takes no unit past the kink of its ReLU, which would shift gradients by 1e-4, in plain PyTorch too.
CHECKED = 32


class Network(nn.Sequential):
    """A conditioner in plain PyTorch; the context that some libraries pass is None."""

    def __init__(self, inputs: int, outputs: int) -> None:
        first, second = HIDDEN
        super().__init__(nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs))

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return super().forward(x)


class Peer(NamedTuple):
    """RealNVP as another library writes it.

    model: its module.
    networks: those of the couplings, in the order that data meet them.
    log_prob: its density, of the module and data.
    scale_map: its map to log-scales.
    order: where the answers of a network, shifts and then log-scales, have their places in its networks' answers.
    """

    model: nn.Module
    networks: Sequence[Network]
    log_prob: Callable[[nn.Module, Tensor], Tensor]
    scale_map: ScaleMap
    order: Tensor


def _own_log_prob(model: Any, x: Tensor) -> Tensor:
    return model.log_prob(x)


def nflows() -> Peer:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    first = torch.arange(FEATURES) >= FEATURES // 2
    couplings = [AffineCouplingTransform((~first if i % 2 else first).int(), Network) for i in range(TRANSFORMS)]
    model = Flow(CompositeTransform(couplings), StandardNormal([FEATURES]))
    networks = [coupling.transform_net for coupling in couplings]
    order = torch.arange(FEATURES)
    return Peer(model, networks, _own_log_prob, ScaleMap("sigmoid", eps=1e-3), order)


def normflows() -> Peer:
    import normflows as nf

    networks = [Network(FEATURES // 2, FEATURES) for _ in range(TRANSFORMS)]
    blocks = [
        nf.flows.AffineCouplingBlock(network, scale_map="exp", split_mode="channel_inv" if i % 2 else "channel")
        for i, network in enumerate(networks)
    ]
    # Its flows go from noise to data, the last one first in a density.
    stack = [nf.flows.Reverse(block) for block in reversed(blocks)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(FEATURES, trainable=False), stack)
    order = torch.arange(FEATURES).view(-1, 2).t().flatten()
    return Peer(model, networks, _own_log_prob, ScaleMap(), order)


def freia() -> Peer:
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    model = SequenceINN(FEATURES)
    for _ in range(TRANSFORMS // 2):
        model.append(GLOWCouplingBlock, subnet_constructor=Network, clamp=2.0, clamp_activation=lambda a: a / (2 + a.abs()))
    networks = [network for block in model.module_list for network in (block.subnet2, block.subnet1)]

    def log_prob(model: nn.Module, x: Tensor) -> Tensor:
        z, log_det = model(x)
        return log_det - 0.5 * z.square().sum(1) - 0.5 * FEATURES * math.log(2 * math.pi)

    return Peer(model, networks, log_prob, ScaleMap("soft_clip", c=2.0), torch.arange(FEATURES).roll(FEATURES // 2))


# By the name of the module; those whose first coupling maps the first half of the features.
PEERS = {"nflows": nflows, "normflows": normflows, "FrEIA": freia}
FIRST_HALF_FIRST = ("FrEIA",)


def cases(setting: Setting) -> Iterator[Case]:
    for name, build in PEERS.items():
        if importlib.util.find_spec(name):
            yield from _beside(name, build(), setting)


def _beside(name: str, peer: Peer, setting: Setting) -> Iterator[Case]:
    device = setting.device
    peer.model.to(device)
    ours = flows.RealNVP(FEATURES, transforms=TRANSFORMS, hidden_features=HIDDEN, scale_map=peer.scale_map, device=device)
    start_apart(peer)
    _copy(peer, ours)
    x = torch.randn(BATCH, FEATURES, device=device)
    theirs = x.roll(FEATURES // 2, 1) if name in FIRST_HALF_FIRST else x

    def log_prob(x: Tensor) -> Tensor:
        return peer.log_prob(peer.model, x)

    def error() -> float:
        truth = copy.deepcopy(peer)
        truth.model.double()
        parameters = [p for network in truth.networks for p in network.parameters()]
        value, *grads = value_and_gradients(parameters, lambda x: truth.log_prob(truth.model, x), theirs[:CHECKED].double())
        expected = [value, *(g[peer.order] if i % 6 >= 4 else g for i, g in enumerate(grads))]
        own = [p for layer in linear_layers(ours) for p in layer.parameters()]
        found = value_and_gradients(own, ours.log_prob, x[:CHECKED])
        return relative_error(found, expected)

    steps = {
        OURS: training_step(ours, ours.log_prob, x, fused=True),
        name: training_step(peer.model, log_prob, theirs, fused=True),
    }
    evaluations = {OURS: evaluation(ours.log_prob, x), name: evaluation(log_prob, theirs)}
    shape, targets = f"{SHAPE}, as {name}", {name: STEP_TARGET}
    forward, step = _work(ours)
    # First, while both have the same weights: what is timed most takes more steps.
    yield Case(OPERATION, "log_prob, no gradients", shape, evaluations, error, forward, device=device)
    yield Case(OPERATION, "step, fused Adam", shape, steps, error, step, targets, device=device)


@torch.no_grad()
def start_apart(peer: Peer) -> None:
    """Small answers, so that eight couplings without bounds on their scales stay finite."""
    for network in peer.networks:
        for parameter in network[-1].parameters():
            parameter.normal_(std=0.01)


@torch.no_grad()
def _copy(peer: Peer, ours: flows.RealNVP) -> None:
    theirs = [layer for network in peer.networks for layer in network if isinstance(layer, nn.Linear)]
    for i, (layer, source) in enumerate(zip(linear_layers(ours), theirs, strict=True)):
        rows = peer.order if i % 3 == 2 else slice(None)
        layer.weight.copy_(source.weight[rows])
        layer.bias.copy_(source.bias[rows])


def linear_layers(ours: flows.RealNVP) -> list[nn.Linear]:
    """Those of the conditioners, in order."""
    couplings = [module for module in ours.modules() if isinstance(module, AffineCoupling)]
    return [layer for coupling in couplings for layer in cast(MLP, coupling.conditioner).layers]


def _work(ours: flows.RealNVP) -> tuple[Work, Work]:
    weights = sum(layer.weight.numel() for layer in linear_layers(ours))
    parameters = sum(p.numel() for p in ours.parameters())
    rows = 4 * BATCH * FEATURES
    return Work(2 * BATCH * weights, 4 * parameters + rows), Work(6 * BATCH * weights, 28 * parameters + rows)
