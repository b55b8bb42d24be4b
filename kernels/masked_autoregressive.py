"""A block of a masked autoregressive flow: network, affine map and log_det in one launch, backward in at most three.

Small networks: a program keeps a tile of rows and walks all layers. Wider ones run layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import affine_autoregressive, gaussian_log_prob, masked_mlp
from ._launch import accumulator
from ._network import network_of
from ._parameter_gradients import parameter_gradients
from ._rows import strides
from ._walk import delta_kernel, forward_kernel, launch_walk

# What one program walks: wider layers would rather be cut into tiles of their own.
_FEATURES, _UNITS, _LAYERS = 64, 512, 8
# Rows of a launch that saves nothing: what their layers put out need not leave the second-level cache.
_ROWS = 16384
# Of a scale map, for a standard normal.
_NO_MAP = (0, 0.0, 0.0)


def _fits(x: Tensor, params: Sequence[Any], activations: Sequence[str]) -> bool:
    """Whether a program walks all layers. The same for a forward pass and its backward, which reads what that saved."""
    widths = [w.shape[0] for w in params[0 : 2 * len(activations) - 2 : 2]]
    return x.shape[1] <= _FEATURES and len(activations) <= _LAYERS and max(widths, default=0) <= _UNITS


def forward(
    x: Tensor,
    params: Sequence[Any],
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: Sequence[Any],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    divide: bool,
    kind: int,
    first: float,
    second: float,
    save: bool,
    log_prob: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """z (B, D), of no elements with `log_prob`, the log_det or log-density (B,), and what backward needs where `save`.

    x (B, D) and context_terms (B, H) have last stride 1, parameters are contiguous.
    """
    if not _fits(x, params, activations):
        return _forward_in_parts(
            x,
            params,
            context_terms,
            log_det,
            plan,
            activations,
            residuals,
            direct,
            divide,
            (kind, first, second),
            save,
            log_prob,
        )
    batch = len(x)
    network = network_of(params, plan, activations, residuals)
    z = x.new_empty(0 if log_prob else x.shape)
    total = x.new_empty(batch, dtype=accumulator(x.dtype))
    rows = batch if save else min(batch, _ROWS)
    room = x.new_empty(rows * sum(network.widths[1:]))
    for begin in range(0, batch, max(rows, 1)):
        part = slice(begin, begin + rows)
        launch_walk(
            forward_kernel,
            x[part],
            room,
            network.widths,
            None if context_terms is None else context_terms[part],
            None if log_det is None else log_det[part],
            z[part],
            total[part],
            network.weights,
            network.biases,
            network.in_orders,
            network.out_orders,
            network.prefixes,
            0 if context_terms is None else context_terms.stride(0),
            0 if log_det is None else log_det.stride(0),
            STORED=network.stored,
            LOADED=network.loaded,
            RESIDUALS=network.residuals,
            DIVIDE=divide,
            LOG_PROB=log_prob,
            KIND=kind,
            A=first,
            B=second,
        )
    return z, total, room if save else x.new_empty(0)


def backward(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Sequence[Any],
    saved: Tensor,
    plan: Sequence[Any],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    divide: bool,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
    log_prob: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradients of x, of the context's terms and of every parameter; of no elements where one is not needed.

    grad_z (B, D) and grad_total (B,) have any strides; an absent one is zero.
    """
    if not _fits(x, params, activations):
        return _backward_in_parts(
            grad_z,
            grad_total,
            x,
            params,
            saved,
            plan,
            activations,
            residuals,
            direct,
            divide,
            (kind, first, second),
            needs,
            log_prob,
        )
    batch, last = len(x), len(activations) - 1
    network = network_of(params, plan, activations, residuals)
    allocate = x.new_empty if batch else x.new_zeros
    gx = allocate(x.shape if needs[0] else 0)
    gparams = [allocate(p.shape if n and p is not None else 0) for p, n in zip(params, needs[2:], strict=True)]
    # The lowest layer whose delta anybody asks for.
    lowest = 0 if any(needs[:2]) else next((i for i in range(last + 1) if any(needs[2 + 2 * i : 4 + 2 * i])), last)
    if batch == 0 or not any(needs):
        return gx, allocate((batch, network.widths[1]) if needs[1] else 0), gparams
    deltas = torch.empty_like(saved)
    launch_walk(
        delta_kernel,
        x,
        deltas,
        network.widths,
        grad_z,
        grad_total,
        gx if needs[0] else None,
        saved,
        network.weights,
        network.in_orders,
        network.out_orders,
        network.suffixes,
        *strides(grad_z),
        0 if grad_total is None else grad_total.stride(0),
        STORED=network.stored,
        LOADED=network.loaded,
        RESIDUALS=network.residuals,
        LOWEST=lowest,
        DIVIDE=divide,
        LOG_PROB=log_prob,
        KIND=kind,
        A=first,
        B=second,
    )
    if any(g.numel() for g in gparams):
        parameter_gradients(x, saved, deltas, network, gparams)
    return gx, deltas[: batch * network.widths[1]].view(batch, -1) if needs[1] else x.new_empty(0), gparams


def _forward_in_parts(
    x: Tensor,
    params: Sequence[Any],
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: Sequence[Any],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    divide: bool,
    scale_map: tuple[int, float, float],
    save: bool,
    log_prob: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the kernels of the network's layers and of the map. Saved are the hidden layers, then the output."""
    y, saved = masked_mlp.forward(x, params, context_terms, plan, activations, residuals, direct, save, save_output=True)
    shift, log_scale = _columns(y, x)
    if log_prob and not divide:
        total = gaussian_log_prob.forward(x, shift, log_scale, *scale_map)
        return x.new_empty(0), total if log_det is None else total + log_det, saved
    z, total = affine_autoregressive.forward(x, shift, log_scale, log_det, divide, *scale_map)
    if log_prob:
        return x.new_empty(0), total + gaussian_log_prob.forward(z, None, None, *_NO_MAP), saved
    return z, total, saved


def _backward_in_parts(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Sequence[Any],
    saved: Tensor,
    plan: Sequence[Any],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    divide: bool,
    scale_map: tuple[int, float, float],
    needs: Sequence[bool],
    log_prob: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    hidden, y = saved[: -2 * x.numel() or None], saved[len(saved) - 2 * x.numel() :]
    shift, log_scale = _columns(y, x)
    wanted = (needs[0], True, True)
    density = grad_total
    if density is None:
        density = x.new_zeros(len(x), dtype=accumulator(x.dtype))
    if log_prob and not divide:
        gu, gt, ga = gaussian_log_prob.backward(density, x, shift, log_scale, *scale_map, wanted)
    else:
        if log_prob:
            z, _ = affine_autoregressive.forward(x, shift, log_scale, None, divide, *scale_map)
            grad_z, *_ = gaussian_log_prob.backward(density, z, None, None, *_NO_MAP, (True, False, False))
        gu, gt, ga = affine_autoregressive.backward(grad_z, grad_total, x, shift, log_scale, divide, *scale_map, wanted)
    assert gt is not None and ga is not None
    grad = torch.stack((gt, ga), -1).flatten(1)
    gx, gcontext, gparams = masked_mlp.backward(grad, x, params, hidden, plan, activations, residuals, direct, needs)
    return gx if gu is None else gx + gu, gcontext, gparams


def _columns(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and raw log-scale, side by side in a network's output."""
    shift, log_scale = y.view(*x.shape, 2).unbind(-1)
    return shift, log_scale
