"""RealNVP on vectors: density, gradients and training step, beside plain PyTorch and other libraries.

Each library has its own map to log-scales; fastgen takes that of the library it is measured against, and its weights.

Work: that of the networks' matrix products, once forward and twice backward; see networks.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from fastgen import flows

from ..case import OURS, Case, Setting
from ..eager import candidates, truth
from ..networks import dense_works
from ..peers import installed
from ..peers.coupled import HIDDEN, CoupledPeer, linear_layers, same_flow, start_apart, truth_of
from ..providers import compiled
from ..steps import EVALUATION, GRADIENTS, STEP, Candidate, whole_model

BATCH, FEATURES, TRANSFORMS = 1024, 64, 8
TARGET = 1.12


def shape_of(batch: int, transforms: int) -> str:
    return f"{batch} x {FEATURES}, {transforms} x hidden {HIDDEN[0]} x {len(HIDDEN)}"


def cases(setting: Setting) -> Iterator[Case]:
    batch, transforms = (64, 2) if setting.quick else (BATCH, TRANSFORMS)
    x = torch.randn(batch, FEATURES, device=setting.device)
    yield from _plain(x, transforms, setting)
    for name, build in installed("realnvp"):
        yield from _beside(name, build(FEATURES, transforms), x, transforms, setting)


def flow_of(depth: int, device: str, *, reversible: bool = False) -> flows.RealNVP:
    """Of couplings that do not start as the identity, in which there would be little to compute and nothing to lose."""
    torch.manual_seed(0)
    flow = flows.RealNVP(FEATURES, transforms=depth, hidden_features=HIDDEN, reversible=reversible, device=device)
    for layer in linear_layers(flow)[2::3]:
        torch.nn.init.normal_(layer.weight, std=0.01)
    return flow


def _plain(x: Tensor, transforms: int, setting: Setting) -> Iterator[Case]:
    flow = flow_of(transforms, setting.device)
    against = {OURS: Candidate(list(flow.parameters()), flow.log_prob, x), **candidates(flow, "log_prob", x, setting)}
    works, exact = dense_works(flow, len(x), FEATURES), truth(flow, "log_prob")
    yield from whole_model("RealNVP", shape_of(len(x), transforms), against, exact, works)


def _beside(name: str, peer: CoupledPeer, x: Tensor, transforms: int, setting: Setting) -> Iterator[Case]:
    peer.model.to(setting.device)
    start_apart(peer.networks)
    ours = same_flow(peer, FEATURES, transforms, setting.device)
    theirs = peer.data(x)
    own = [p for layer in linear_layers(ours) for p in layer.parameters()]
    against = {
        OURS: Candidate(own, ours.log_prob, x),
        name: peer.candidate(x),
    }
    for mode in compiled(peer.log_prob, setting):
        copied = copy.deepcopy(peer)
        log_prob = compiled(partial(copied.log_prob, copied.model), setting)[mode]
        compiled_name = mode.replace("compiled", f"compiled {name}")
        against[compiled_name] = Candidate(copied.parameters, log_prob, theirs, copied.arranged)
    works, modes = dense_works(ours, len(x), FEATURES), (EVALUATION, GRADIENTS, STEP)
    shape = f"{shape_of(len(x), transforms)}, as {name}"
    yield from whole_model("RealNVP", shape, against, truth_of(peer), works, {STEP: {name: TARGET}}, modes=modes)
