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

from ..case import OURS, Case, MemoryCase, Setting
from ..networks import Works, dense_works, optimiser_work
from ..peers.coupled import Network, linear_layers
from ..steps import STEP, Candidate, own, value_and_gradients, whole_model
from .realnvp import BATCH, FEATURES, flow_of, shape_of

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
    for depth in (4,) if setting.quick else DEPTHS:
        yield from _step(depth, setting.device)
    if setting.counts_memory:
        for depth in MEMORY_DEPTHS:
            yield _memory(depth)


def _step(depth: int, device: str) -> Iterator[Case]:
    x = torch.randn(BATCH, FEATURES, device=device)
    ours, kept = flow_of(depth, device, reversible=True), flow_of(depth, device)
    plain, exact = PlainCouplings(ours), PlainCouplings(ours).double()
    candidates = {
        OURS: own(ours, ours.log_prob, x),
        KEPT: own(kept, kept.log_prob, x),
        PLAIN: Candidate(list(plain.parameters()), plain.log_prob, x),
    }

    def truth(x: Tensor) -> tuple[Tensor, ...]:
        return value_and_gradients(list(exact.parameters()), exact.log_prob, x)

    targets = {STEP: STEP_TARGETS}
    yield from whole_model(OPERATION, shape_of(BATCH, depth), candidates, truth, _works(ours), targets, modes=(STEP,))


def _works(flow: flows.RealNVP) -> Works:
    """A pass forward more than of a stack that keeps what it computed."""
    dense = dense_works(flow, BATCH, FEATURES)
    backward = dense.forward + dense.backward
    step = dense.forward + backward + optimiser_work(sum(p.numel() for p in flow.parameters()))
    return Works(dense.forward, backward, step)


def _memory(depth: int) -> MemoryCase:
    candidates = {
        OURS: partial(_gradients, depth, True),
        KEPT: partial(_gradients, depth, False),
        PLAIN: partial(_gradients, depth, None),
    }
    returned = 4 * sum(p.numel() for p in flow_of(depth, "cpu").parameters())
    return MemoryCase(OPERATION, "gradients", shape_of(BATCH, depth), candidates, returned, ALLOWED)


def _gradients(depth: int, reversible: bool | None) -> Callable[[], object]:
    """A call of the density and its gradients; reversible None: in plain PyTorch."""
    flow = flow_of(depth, "cpu", reversible=bool(reversible))
    model = PlainCouplings(flow) if reversible is None else flow
    parameters = list(model.parameters())
    value_and_gradients(parameters, model.log_prob, torch.randn(8, FEATURES))
    return partial(value_and_gradients, parameters, model.log_prob, torch.randn(BATCH, FEATURES))
