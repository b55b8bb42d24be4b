"""Reversible stacks of couplings against depth: the time of a training step, and the memory that its gradients take.

Work: that of the networks' matrix products, twice forward and twice backward; a step also reads weights, gradients and Adam's
two moments and writes weights and moments.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from fastgen import flows
from fastgen.flows.coupling import SCALE_MAP

from .case import OURS, Case, MemoryCase, Setting, Work, relative_error
from .coupling_flows import BATCH, CHECKED, FEATURES, HIDDEN, Network, linear_layers
from .steps import training_step, value_and_gradients

OPERATION = "reversible"
PLAIN, KEPT = "plain PyTorch", "nothing rebuilt"
DEPTHS = (8, 16, 48)
MEMORY_DEPTHS = (4, 16, 48)
STEP_TARGETS = {PLAIN: 1 / 1.35}
# Less than plain PyTorch takes for four couplings.
ALLOWED = {"at any depth": 12 << 20}


class PlainCouplings(nn.Module):
    """The density of a RealNVP on halves of vectors, with copies of its networks and plain autograd."""

    def __init__(self, flow: flows.RealNVP) -> None:
        super().__init__()
        layers = copy.deepcopy(linear_layers(flow))
        self.networks = nn.ModuleList()
        for i in range(0, len(layers), 3):
            network = Network(FEATURES // 2, FEATURES)
            network[0], network[2], network[4] = layers[i : i + 3]
            self.networks.append(network)
        self.scale_map = SCALE_MAP

    def log_prob(self, x: Tensor) -> Tensor:
        """x (..., D) -> (...) in nats."""
        log_det = torch.zeros((), dtype=x.dtype, device=x.device)
        for i, network in enumerate(self.networks):
            halves = x.chunk(2, -1)
            passing, mapped = halves[::-1] if i % 2 else halves
            shift, raw = network(passing).chunk(2, -1)
            log_scale = self.scale_map(raw)
            mapped = mapped * log_scale.exp() + shift
            x = torch.cat((mapped, passing) if i % 2 else (passing, mapped), -1)
            log_det = log_det + log_scale.sum(-1)
        return log_det - 0.5 * x.square().sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)


def cases(setting: Setting) -> Iterator[Case | MemoryCase]:
    for depth in DEPTHS[:1] if setting.quick else DEPTHS:
        yield _step(depth, setting.device)
    if setting.device == "cpu" and not setting.quick:
        for depth in MEMORY_DEPTHS:
            yield _memory(depth)


def _flow(depth: int, reversible: bool, device: str = "cpu") -> flows.RealNVP:
    torch.manual_seed(0)
    flow = flows.RealNVP(FEATURES, transforms=depth, hidden_features=HIDDEN, reversible=reversible, device=device)
    for layer in linear_layers(flow)[2::3]:
        # Couplings that start as the identity would lose nothing when rebuilt.
        nn.init.normal_(layer.weight, std=0.01)
    return flow


def _step(depth: int, device: str) -> Case:
    x = torch.randn(BATCH, FEATURES, device=device)
    ours, kept = _flow(depth, True, device), _flow(depth, False, device)
    plain = PlainCouplings(ours)

    def error() -> float:
        truth = PlainCouplings(ours).double()
        found = value_and_gradients(list(ours.parameters()), ours.log_prob, x[:CHECKED])
        return relative_error(found, value_and_gradients(list(truth.parameters()), truth.log_prob, x[:CHECKED].double()))

    steps = {
        OURS: training_step(ours, ours.log_prob, x, fused=True),
        KEPT: training_step(kept, kept.log_prob, x, fused=True),
        PLAIN: training_step(plain, plain.log_prob, x, fused=True),
    }
    return Case(OPERATION, "step, fused Adam", _shape(depth), steps, error, _work(ours), STEP_TARGETS, device=device)


def _shape(depth: int) -> str:
    return f"{BATCH} x {FEATURES}, {depth} x hidden {HIDDEN[0]} x {len(HIDDEN)}"


def _work(flow: flows.RealNVP) -> Work:
    weights = sum(layer.weight.numel() for layer in linear_layers(flow))
    return Work(8 * BATCH * weights, 28 * sum(p.numel() for p in flow.parameters()))


def _memory(depth: int) -> MemoryCase:
    candidates = {
        OURS: partial(_gradients, depth, True),
        KEPT: partial(_gradients, depth, False),
        PLAIN: partial(_gradients, depth, None),
    }
    returned = 4 * sum(p.numel() for p in _flow(depth, True).parameters())
    return MemoryCase(OPERATION, "gradients", _shape(depth), candidates, returned, ALLOWED)


def _gradients(depth: int, reversible: bool | None) -> Callable[[], object]:
    """A call of the density and its gradients; reversible None: in plain PyTorch."""
    flow = _flow(depth, bool(reversible))
    model = PlainCouplings(flow) if reversible is None else flow
    parameters = list(model.parameters())
    value_and_gradients(parameters, model.log_prob, torch.randn(8, FEATURES))
    return partial(value_and_gradients, parameters, model.log_prob, torch.randn(BATCH, FEATURES))
