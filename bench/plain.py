"""Masked networks in plain PyTorch, as other libraries write them: what fastgen is measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgen.flows import Flow, MaskedAutoregressiveTransform
from fastgen.nn import MADE
from fastgen.reference import ACTIVATIONS, MaskedLayer, MaskedNetwork, degree_mask


def mask_of(layer: MaskedLayer) -> Tensor:
    """The (out, in) boolean mask of a layer."""
    return degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), layer.strict)


def parameters_of(made: MADE) -> list[Tensor]:
    """Weight and bias of every layer, in order."""
    return [p for layer in made.layers for p in layer.parameters()]


def masked_chain(x: Tensor, network: MaskedNetwork, params: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
    """A network without residual and direct connections, W * M formed on every call; a mask of None leaves W dense."""
    for i, (layer, mask) in enumerate(zip(network.layers, masks, strict=True)):
        weight, bias = params[2 * i], params[2 * i + 1]
        x = ACTIVATIONS[layer.activation](F.linear(x, weight if mask is None else weight * mask, bias))
    return x.unflatten(-1, (-1, network.outputs))


class PlainMAF(nn.Module):
    """The density of a stack of masked autoregressive transforms, with W * M formed in every layer on every call.

    It has copies of the flow's parameters and stays on their device. A flow with a context, residual or direct connections is
    beyond it; other transforms than autoregressive ones are left out.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        transforms = [t for t in flow.modules() if isinstance(t, MaskedAutoregressiveTransform)]
        self.scale_map = transforms[0].scale_map
        self.networks = [t.made.network for t in transforms]
        self.params = [[nn.Parameter(p.detach().clone()) for p in parameters_of(t.made)] for t in transforms]
        self.masks = [[mask_of(layer).to(self.params[0][0]) for layer in network.layers] for network in self.networks]
        self.registered = nn.ParameterList(p for params in self.params for p in params)

    def log_prob(self, x: Tensor) -> Tensor:
        """x (..., D) -> (...) in nats."""
        z, log_det = self._noise(x)
        return log_det - 0.5 * z.square().sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)

    def noise(self, x: Tensor) -> Tensor:
        """x (..., D) -> the noise (..., D) it is made of."""
        return self._noise(x)[0]

    def _noise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros((), dtype=x.dtype, device=x.device)
        for network, params, masks in zip(self.networks, self.params, self.masks, strict=True):
            shift, raw = masked_chain(x, network, params, masks).unbind(-1)
            log_scale = self.scale_map(raw)
            x = (x - shift) * (-log_scale).exp()
            log_det = log_det - log_scale.sum(-1)
        return x, log_det
