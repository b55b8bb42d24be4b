"""masked_autoregressive, a block of a MAF in one call, against the network and the map as two operations and against W * M;
and a stack of five in one call against five calls.

Work: that of the networks, see masked_mlp; x is read and z written where a network's outputs would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastgen import ops, reference
from fastgen.flows import MaskedAutoregressiveTransform
from fastgen.ops import AutoregressiveBlock

from ..case import OURS, Case, Function, Setting, Work, leaves, passes
from ..plain import mask_of, masked_chain, parameters_of
from . import masked_mlp

# Each with what follows the network.
BLOCKS: dict[str, tuple[Any, Any, Any]] = {
    "masked_autoregressive": (ops.masked_autoregressive, ops.affine_autoregressive, reference.affine_autoregressive),
    "masked_autoregressive_log_prob": (
        ops.masked_autoregressive_log_prob,
        ops.gaussian_log_prob,
        reference.gaussian_log_prob,
    ),
}

STACKED = 5


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features, hidden in ((256, 64, 512),) if setting.quick else ((256, 64, 512), (256, 256, 512), (64, 8, 64)):
        dtype = torch.get_default_dtype()
        transform = MaskedAutoregressiveTransform(features, hidden_features=(hidden, hidden)).to(setting.device)
        network = transform.made.network
        masks = [mask_of(layer).to(setting.device, dtype) for layer in network.layers]
        shape = f"{batch} x {features}, hidden {hidden} x 2"
        for name, (block, follows, defined) in BLOCKS.items():
            candidates: dict[str, Function] = {
                OURS: partial(_ours, transform, block),
                "two operations": partial(_two_operations, transform, follows),
                "W * M": partial(_plain, transform, defined, masks),
            }
            inputs = leaves(torch.randn(batch, features, device=setting.device), *parameters_of(transform.made))
            yield from passes(name, shape, candidates, candidates["W * M"], inputs, masked_mlp.work(network, batch))
        # In half precision the rounding of a stack is more than is allowed of an operation.
        if dtype.itemsize > 2:
            yield from _stack(transform, masks, batch, shape)


def _stack(transform: MaskedAutoregressiveTransform, masks: list[Tensor], batch: int, shape: str) -> Iterator[Case]:
    """Blocks of one network with parameters of their own."""
    params = [p for _ in range(STACKED) for p in parameters_of(transform.made)]
    inputs = leaves(torch.randn(batch, transform.made.features, device=params[0].device), *params)
    forward, backward = (
        Work(STACKED * one.flops, STACKED * one.bytes) for one in masked_mlp.work(transform.made.network, batch)
    )
    for name, ends in (("masked_autoregressive_stack", _both), ("masked_autoregressive_stack_log_prob", _log_prob)):
        candidates: dict[str, Function] = {
            OURS: partial(_stacked, transform, getattr(ops, name)),
            "five calls": partial(_chained, partial(_ours, transform, ops.masked_autoregressive), ends),
            "W * M": partial(_chained, partial(_plain, transform, reference.affine_autoregressive, masks), ends),
        }
        yield from passes(name, f"{STACKED} of {shape}", candidates, candidates["W * M"], inputs, (forward, backward))


def _both(z: Tensor, log_det: Tensor) -> Any:
    return z, log_det


def _log_prob(z: Tensor, log_det: Tensor) -> Any:
    return reference.gaussian_log_prob(z) + log_det


def _shares(params: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    count = len(params) // STACKED
    return (params[i * count : (i + 1) * count] for i in range(STACKED))


def _stacked(transform: MaskedAutoregressiveTransform, stack: Function, x: Tensor, *params: Tensor) -> Any:
    network, plan = transform.made.masked(0, x.device)
    blocks = [AutoregressiveBlock(network, own, scale_map=transform.scale_map) for own in _shares(params)]
    return stack(x, blocks, plans=[plan] * STACKED)


def _chained(block: Function, ends: Function, x: Tensor, *params: Tensor) -> Any:
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for own in _shares(params):
        x, log_det = block(x, *own)
        total = total + log_det
    return ends(x, total)


def _ours(transform: MaskedAutoregressiveTransform, block: Function, x: Tensor, *params: Tensor) -> Any:
    network, plan = transform.made.masked(0, x.device)
    return block(x, network, params, scale_map=transform.scale_map, plan=plan)


def _two_operations(transform: MaskedAutoregressiveTransform, follows: Function, x: Tensor, *params: Tensor) -> Any:
    network, plan = transform.made.masked(0, x.device)
    shift, raw = ops.masked_mlp(x, network, params, plan=plan).unbind(-1)
    return follows(x, shift, raw, scale_map=transform.scale_map)


def _plain(transform: MaskedAutoregressiveTransform, follows: Function, masks: list[Tensor], x: Tensor, *params: Tensor) -> Any:
    shift, raw = masked_chain(x, transform.made.network, params, masks).unbind(-1)
    return follows(x, shift, raw, scale_map=transform.scale_map)
