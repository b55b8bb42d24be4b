"""masked_autoregressive, a block of a MAF in one call, against the network and the map as two operations and against W * M.

Work: that of the network, see masked_mlp; x is read and z written where the network's outputs would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from fastgen import ops
from fastgen.flows import MaskedAutoregressiveTransform

from ..case import OURS, Case, Setting, leaves, passes
from ..plain import mask_of, masked_chain, parameters_of
from . import masked_mlp

OPERATION = "masked_autoregressive"

Block = Callable[..., tuple[Tensor, Tensor]]


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, hidden in ((256, 64, 512),) if setting.quick else ((256, 64, 512), (256, 256, 512), (64, 8, 64)):
        transform = MaskedAutoregressiveTransform(features, hidden_features=(hidden, hidden)).to(setting.device)
        network = transform.made.network
        masks = [mask_of(layer).to(setting.device, torch.float32) for layer in network.layers]
        candidates: dict[str, Block] = {
            OURS: partial(_ours, transform),
            "two operations": partial(_two_operations, transform),
            "W * M": partial(_plain, transform, masks),
        }
        inputs = leaves(torch.randn(batch, features, device=setting.device), *parameters_of(transform.made))
        shape = f"{batch} x {features}, hidden {hidden} x 2"
        work = masked_mlp.work(network, batch)
        yield from passes(OPERATION, shape, candidates, candidates["W * M"], inputs, work)


def _ours(transform: MaskedAutoregressiveTransform, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
    network, plan = transform.made.masked(0, x.device)
    return ops.masked_autoregressive(x, network, params, scale_map=transform.scale_map, plan=plan)


def _two_operations(transform: MaskedAutoregressiveTransform, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
    network, plan = transform.made.masked(0, x.device)
    shift, raw = ops.masked_mlp(x, network, params, plan=plan).unbind(-1)
    return ops.affine_autoregressive(x, shift, raw, scale_map=transform.scale_map)


def _plain(transform: MaskedAutoregressiveTransform, masks: list[Tensor], x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
    shift, raw = masked_chain(x, transform.made.network, params, masks).unbind(-1)
    s = transform.scale_map(raw)
    return (x - shift) * (-s).exp(), -s.sum(-1)
