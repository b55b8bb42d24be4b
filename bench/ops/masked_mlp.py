"""masked_mlp, a whole MADE network, against the same network with W * M formed on every call and against the dense one.

Work: that of its layers, see masked_linear; between layers nothing has to leave the caches. The weights are zero outside the
masks, so that the dense network computes the same; its gradients are compared inside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from fastgen import ops
from fastgen.nn import MADE

from ..case import OURS, Case, Results, Setting, Work, leaves, passes
from ..plain import mask_of, masked_chain, parameters_of
from ..precision import word
from ..providers import compiled
from . import masked_linear

OPERATION = "masked_mlp"


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, hidden in ((256, 64, 512),) if setting.quick else ((256, 64, 512), (256, 256, 512), (64, 8, 64)):
        made = MADE(features, hidden_features=(hidden, hidden), device=setting.device)
        network = made.network
        masks = [mask_of(layer).to(setting.device, torch.get_default_dtype()) for layer in network.layers]
        masked = _chain(network, masks)
        candidates = {
            OURS: _ours(network, setting.device),
            "dense": _chain(network, [None] * 3),
            "W * M": masked,
            **compiled(masked, setting),
        }
        params = [p.detach() * masks[i // 2] if i % 2 == 0 else p for i, p in enumerate(parameters_of(made))]
        inputs = leaves(torch.randn(batch, features, device=setting.device), *params)
        shape = f"{batch} x {features}, hidden {hidden} x 2"
        compared = {"dense": partial(_inside, masks)}
        yield from passes(OPERATION, shape, candidates, masked, inputs, work(network, batch), compared=compared)


def _inside(masks: Sequence[Tensor], results: Results) -> Results:
    """Outputs, gradients of x and of the parameters, those of the weights inside the masks only."""
    y, gx, *grads = results
    return [y, gx, *(g * masks[i // 2] if i % 2 == 0 else g for i, g in enumerate(grads))]


def work(network: ops.MaskedNetwork, batch: int) -> tuple[Work, Work]:
    """Of the forward and of the backward pass."""
    passes = [masked_linear.work(layer, batch, torch.get_default_dtype()) for layer in network.layers]
    forward, backward = (sum(work.flops for work in each) for each in zip(*passes, strict=True))
    ends = word() * batch * (network.features + len(network.layers[-1].out_degrees))
    weights = word() * sum(len(layer.in_degrees) * len(layer.out_degrees) for layer in network.layers)
    return Work(forward, ends + weights), Work(backward, ends + 2 * weights)


def _ours(network: ops.MaskedNetwork, device: str) -> Callable[..., Tensor]:
    plan = ops.make_network_plan(network, device)
    return lambda x, *params: ops.masked_mlp(x, network, params, plan=plan)


def _chain(network: ops.MaskedNetwork, masks: Sequence[Tensor | None]) -> Callable[..., Tensor]:
    return lambda x, *params: masked_chain(x, network, params, masks)
