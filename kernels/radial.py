"""Radial layers, their inverse and the gradients of both: rows stay in registers through all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, on_device
from ._layers import (
    gathered,
    gradient_room,
    layer_strides,
    layer_tile,
    load_layer,
    over_rows,
    put,
    values_over_rows,
)
from ._math import divide, exp, log, sigmoid, softplus
from ._rows import load_row_values, load_tile, store_tile, strides


@triton.jit
def _numerator(r, alpha, reach):
    return r * r + 2.0 * alpha * r + alpha * reach


@triton.jit
def _root(length, alpha, reach):
    """The r >= 0 with r (r + reach) / (r + alpha) = length."""
    d = length - reach
    q = tl.sqrt(d * d + 4.0 * alpha * length)
    return tl.where(d > 0.0, 0.5 * (d + q), divide(2.0 * alpha * length, tl.where(d > 0.0, 1.0, q - d)))


@triton.jit
def _layer(
    centre,
    log_alpha,
    raw_beta,
    own,
    column,
    k,
    mask,
    batch,
    centre_row,
    centre_layer,
    alpha_row,
    alpha_layer,
    beta_row,
    beta_layer,
):
    """The k-th layer's centre, alpha and raw beta for each row."""
    c = load_layer(centre, own, column, centre_row, centre_layer, k, mask)
    a = load_row_values(log_alpha + k.to(tl.int64) * alpha_layer, own, alpha_row, own < batch)
    return c, exp(a), load_row_values(raw_beta + k.to(tl.int64) * beta_layer, own, beta_row, own < batch)


@triton.jit
def _step(point, c, alpha, reach, mask, INVERSE: tl.constexpr):
    """What a layer reads relative to its centre, the radius on the side that the formulas are of, and the factor."""
    away = tl.where(mask, point - c, 0.0)
    r = tl.sqrt(tl.sum(away * away, 1))
    if INVERSE:
        r = _root(r, alpha, reach)
    return away, r, divide(r + reach, r + alpha)


@triton.jit
def _forward_kernel(
    z,
    centre,
    log_alpha,
    raw_beta,
    out,
    log_det,
    batch,
    features,
    count,
    z_row,
    z_column,
    centre_row,
    centre_layer,
    alpha_row,
    alpha_layer,
    beta_row,
    beta_layer,
    SHARED: tl.constexpr,
    INVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = row < batch
    mask = inside[:, None] & (column < features)[None, :]
    # Shared parameters are one row.
    own = tl.arange(0, 1) if SHARED else row
    own_mask = (own < batch)[:, None] & (column < features)[None, :]
    point = load_tile(z, row, column, z_row, z_column, mask)
    total = tl.zeros((ROWS,), log_det.dtype.element_ty)
    for i in range(count):
        k = count - 1 - i if INVERSE else i
        k = k + tl.zeros((), tl.int32)
        c, alpha, raw = _layer(
            centre,
            log_alpha,
            raw_beta,
            own,
            column,
            k,
            own_mask,
            batch,
            centre_row,
            centre_layer,
            alpha_row,
            alpha_layer,
            beta_row,
            beta_layer,
        )
        reach = softplus(raw)
        away, r, ratio = _step(point, c, alpha, reach, mask, INVERSE)
        outer = r + alpha
        total += (features - 1) * log(ratio) + log(divide(_numerator(r, alpha, reach), outer * outer))
        point = c + (divide(away, ratio[:, None] + away * 0.0) if INVERSE else away * ratio[:, None])
    store_tile(out, row, column, features, point, mask)
    tl.store(log_det + row, -total if INVERSE else total, mask=inside)


@triton.jit
def _backward_kernel(
    grad_out,
    grad_log_det,
    z,
    centre,
    log_alpha,
    raw_beta,
    states,
    gz,
    gcentre,
    galpha,
    gbeta,
    batch,
    features,
    count,
    grad_row,
    grad_column,
    grad_log_det_stride,
    z_row,
    z_column,
    centre_row,
    centre_layer,
    alpha_row,
    alpha_layer,
    beta_row,
    beta_layer,
    SHARED: tl.constexpr,
    INVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.arange(0, COLUMNS)
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    blocks = tl.cdiv(batch, ROWS)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row = block * ROWS + tl.arange(0, ROWS)
        inside = row < batch
        mask = inside[:, None] & (column < features)[None, :]
        own = tl.arange(0, 1) if SHARED else row
        # Where the gradients of this block's parameters go: shared ones are summed program by program.
        at = tl.program_id(0) + tl.arange(0, 1) if SHARED else row
        own_mask = (own < batch)[:, None] & (column < features)[None, :]
        again = SHARED & ((block + tl.zeros((), tl.int32)) != tl.program_id(0))
        point = load_tile(z, row, column, z_row, z_column, mask)
        grad = load_tile(grad_out, row, column, grad_row, grad_column, mask)
        gl = load_row_values(grad_log_det, row, grad_log_det_stride, inside)
        for i in range(count):
            k = count - 1 - i if INVERSE else i
            k = k + tl.zeros((), tl.int32)
            c, alpha, raw = _layer(
                centre,
                log_alpha,
                raw_beta,
                own,
                column,
                k,
                own_mask,
                batch,
                centre_row,
                centre_layer,
                alpha_row,
                alpha_layer,
                beta_row,
                beta_layer,
            )
            # What a layer has read is kept, one program's after the other.
            store_tile(states + k.to(tl.int64) * tl.num_programs(0) * ROWS * features, slot, column, features, point, mask)
            away, r, ratio = _step(point, c, alpha, softplus(raw), mask, INVERSE)
            point = c + (divide(away, ratio[:, None] + away * 0.0) if INVERSE else away * ratio[:, None])
        tl.debug_barrier()
        for i in range(count):
            k = i if INVERSE else count - 1 - i
            k = k + tl.zeros((), tl.int32)
            c, alpha, raw = _layer(
                centre,
                log_alpha,
                raw_beta,
                own,
                column,
                k,
                own_mask,
                batch,
                centre_row,
                centre_layer,
                alpha_row,
                alpha_layer,
                beta_row,
                beta_layer,
            )
            reach = softplus(raw)
            kept = states + k.to(tl.int64) * tl.num_programs(0) * ROWS * features
            away, r, ratio = _step(load_tile(kept, slot, column, features, 1, mask), c, alpha, reach, mask, INVERSE)
            if INVERSE:
                away = divide(away, ratio[:, None] + away * 0.0)
            along = tl.sum(away * grad, 1)
            one = r * 0.0 + 1.0
            outer, numerator = divide(one, r + alpha), divide(one, _numerator(r, alpha, reach))
            difference, rest = (alpha - reach) * outer, divide(one * (features - 1), r + reach)
            by_r = difference * (rest + 2.0 * alpha * numerator)
            by_reach = rest + alpha * numerator
            by_alpha = outer * ((reach * r - 2.0 * alpha * r - alpha * reach) * numerator - (features - 1))
            over = tl.where(r > 0.0, divide(one, tl.where(r > 0.0, r, 1.0)), 0.0)
            if INVERSE:
                slope = (r + alpha) * (r + alpha) * numerator
                outward = over * along
                moved = (outward - gl * by_r) * slope * r
                scale = divide(one, ratio)
                share = -slope * (divide(outward * difference, r + reach) + over * gl * by_r)
                to_alpha, to_reach = moved * ratio * outer - gl * by_alpha, -moved * outer - gl * by_reach
            else:
                scale = ratio
                share = over * (along * difference * outer + gl * by_r)
                to_alpha, to_reach = gl * by_alpha - along * ratio * outer, gl * by_reach + along * outer
            passed = scale[:, None] * grad + share[:, None] * away
            offsets = (at.to(tl.int64)[:, None] * count + k) * features + column[None, :]
            put(gcentre, offsets, over_rows(grad - passed, SHARED), own_mask, again)
            number = at.to(tl.int64) * count + k
            put(galpha, number, values_over_rows(to_alpha * alpha, SHARED), own < batch, again)
            put(gbeta, number, values_over_rows(to_reach * sigmoid(raw), SHARED), own < batch, again)
            grad = passed
        store_tile(gz, row, column, features, grad, mask)
        tl.debug_barrier()


def forward(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The last z (B, D) and log_det (B,).

    z is (B, D) at any strides, centre (K, D) or (B, K, D) with features one after the other, the others (K,) or (B, K).
    """
    batch, features = z.shape
    out, log_det = z.new_empty((batch, features)), z.new_empty(batch, dtype=accumulator(z.dtype))
    if batch == 0:
        return out, log_det
    shared = centre.dim() == 2
    tile = layer_tile(z, persistent=False)
    with on_device(z):
        _forward_kernel[(tile.programs,)](
            z,
            centre,
            log_alpha,
            raw_beta,
            out,
            log_det,
            batch,
            features,
            centre.shape[-2],
            *z.stride(),
            *layer_strides(centre, shared),
            *layer_strides(log_alpha, shared),
            *layer_strides(raw_beta, shared),
            SHARED=shared,
            INVERSE=inverse,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
        )
    return out, log_det


def backward(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    centre: Tensor,
    log_alpha: Tensor,
    raw_beta: Tensor,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of z, centre, log_alpha and raw_beta, those that are needed."""
    batch, features = z.shape
    parameters = (centre, log_alpha, raw_beta)
    if batch == 0:
        first, *rest = (torch.zeros_like(t) if n else t.new_empty(0) for t, n in zip((z, *parameters), needs, strict=True))
        return first, rest[0], rest[1], rest[2]
    shared = centre.dim() == 2
    # Programs that go on keep fewer states.
    tile = layer_tile(z, persistent=True)
    gz = z.new_empty((batch, features)) if needs[0] else None
    rooms = [gradient_room(t, n, shared, tile.programs) for t, n in zip(parameters, needs[1:], strict=True)]
    states = z.new_empty((centre.shape[-2], tile.programs * tile.rows, features), dtype=accumulator(z.dtype))
    with on_device(z):
        _backward_kernel[(tile.programs,)](
            grad_out,
            grad_log_det,
            z,
            centre,
            log_alpha,
            raw_beta,
            states,
            gz,
            *rooms,
            batch,
            features,
            centre.shape[-2],
            *strides(grad_out),
            0 if grad_log_det is None else grad_log_det.stride(0),
            *z.stride(),
            *layer_strides(centre, shared),
            *layer_strides(log_alpha, shared),
            *layer_strides(raw_beta, shared),
            SHARED=shared,
            INVERSE=inverse,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
        )
    gcentre, galpha, gbeta = (gathered(room, t, shared) for room, t in zip(rooms, parameters, strict=True))
    return z.new_empty(0) if gz is None else gz, gcentre, galpha, gbeta
