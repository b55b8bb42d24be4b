"""RealNVP of other libraries, and their weights in fastgen's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastgen import flows
from fastgen.flows import AffineCoupling
from fastgen.nn import MLP
from fastgen.ops import ScaleMap

from ..steps import Candidate, value_and_gradients

HIDDEN = (256, 256)


class Network(nn.Sequential):
    """A conditioner in plain PyTorch; the context that some libraries pass is None."""

    def __init__(self, inputs: int, outputs: int) -> None:
        first, second = HIDDEN
        super().__init__(nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs))

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return super().forward(x)


@dataclass(frozen=True)
class CoupledPeer:
    """RealNVP as another library writes it.

    networks: those of the couplings, in the order that data meet them.
    log_prob: its density, of the model and data.
    scale_map: its map to log-scales.
    order: where the answers of a network, shifts and then log-scales, have their places in its networks' answers.
    first_half_first: whether its first coupling maps the first half of the features.
    """

    model: nn.Module
    networks: Sequence[Network]
    log_prob: Callable[[Any, Tensor], Tensor]
    scale_map: ScaleMap
    order: Tensor
    first_half_first: bool = False

    @property
    def parameters(self) -> list[Tensor]:
        return [p for network in self.networks for p in network.parameters()]

    def arranged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Its parameters' gradients in the places that fastgen's flow has for them."""
        return [t[self.order] if i % 6 >= 4 else t for i, t in enumerate(tensors)]

    def data(self, x: Tensor) -> Tensor:
        """fastgen's data as this library wants them."""
        return x.roll(x.shape[1] // 2, 1) if self.first_half_first else x

    def candidate(self, x: Tensor) -> Candidate:
        """Its density of fastgen's data x, to be timed."""
        return Candidate(self.parameters, partial(self.log_prob, self.model), self.data(x), self.arranged)


@torch.no_grad()
def start_apart(networks: Sequence[Network]) -> None:
    """Small answers, so that eight couplings without bounds on their scales stay finite."""
    for network in networks:
        for parameter in network[-1].parameters():
            parameter.normal_(std=0.01)


@torch.no_grad()
def same_flow(peer: CoupledPeer, features: int, transforms: int, device: str) -> flows.RealNVP:
    """fastgen's flow with the weights of another library's: the same density."""
    flow = flows.RealNVP(features, transforms=transforms, hidden_features=HIDDEN, scale_map=peer.scale_map, device=device)
    own = [p for layer in linear_layers(flow) for p in layer.parameters()]
    for parameter, source in zip(own, peer.arranged(peer.parameters), strict=True):
        parameter.copy_(source)
    return flow


def truth_of(peer: CoupledPeer) -> Callable[[Tensor], list[Tensor]]:
    """Value and gradients of a library's density in float64, with its weights of now."""
    exact = copy.deepcopy(peer)
    exact.model.double()

    def expected(x: Tensor) -> list[Tensor]:
        candidate = exact.candidate(x)
        value, *grads = value_and_gradients(candidate.parameters, candidate.log_prob, candidate.x)
        return [value, *exact.arranged(grads)]

    return expected


def linear_layers(flow: flows.RealNVP) -> list[nn.Linear]:
    """Those of the conditioners, in order."""
    couplings = [module for module in flow.modules() if isinstance(module, AffineCoupling)]
    return [layer for coupling in couplings for layer in cast(MLP, coupling.conditioner).layers]
