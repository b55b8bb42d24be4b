"""Planar layers, their inverse and the gradients of both: z is read once and written once, whatever the number of layers."""

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
from ._math import divide, exp, expm1, log, log1p, sigmoid, softplus
from ._rows import load_row_values, load_tile, store_tile, strides

# As in fastgen.reference.planar.
_MOST_STEPS = tl.constexpr(100)


@triton.jit
def _smallest_normal(x):
    if x.dtype == tl.float64:
        return 2.2250738585072014e-308
    else:
        return 1.1754943508222875e-38


@triton.jit
def _layer(along, norm, CONSTRAIN: tl.constexpr):
    """missing, stretch and log(stretch): the direction is u + missing w, and w.direction = stretch - 1."""
    if CONSTRAIN:
        singular = norm == 0.0
        missing = tl.where(singular, 0.0, divide(softplus(-along) - 1.0, tl.where(singular, 1.0, norm)))
        small = along < -18.0
        tail = along - 0.5 * exp(tl.where(small, along, -18.0))
        log_stretch = tl.where(small, tail, log(softplus(tl.where(small, 0.0, along))))
        return missing, tl.where(singular, 1.0, softplus(along)), tl.where(singular, 0.0, log_stretch)
    else:
        return along * 0.0, 1.0 + along, log(tl.abs(1.0 + along))


@triton.jit
def _tanh_with_slope(a):
    """tanh and its derivative, to full relative precision both."""
    e = expm1(tl.minimum(2.0 * tl.abs(a), 80.0))
    q = divide(e * 0.0 + 2.0, e + 2.0)
    h = tl.where(e > 2.0, 1.0 - q, 0.5 * e * q)
    h = tl.where(a != a, a, tl.where(a < 0, -h, h))
    return h, q * (2.0 - q)


@triton.jit
def _underflows(det, stretch):
    tiny = _smallest_normal(det)
    return (det < tiny) & (stretch >= 0.0) & (stretch < 4.0 * tiny)


@triton.jit
def _log_det(a, det, stretch, log_stretch):
    small = _underflows(det, stretch)
    square = 2.0 * log(tl.where(small & (a != 0.0), tl.abs(a), 1.0))
    high, low = tl.maximum(square, log_stretch), tl.minimum(square, log_stretch)
    tail = tl.where(a == 0.0, log_stretch, high + log1p(exp(low - high)))
    return tl.where(small, tail, log(tl.where(small, 1.0, tl.abs(det))))


@triton.jit
def _minus_tanh(a, h):
    s = a * a
    p = s * (-6404582 / 10854718875) + (929569 / 638512875)
    p = p * s + (-21844 / 6081075)
    p = p * s + (1382 / 155925)
    p = p * s + (-62 / 2835)
    p = p * s + (17 / 315)
    p = p * s + (-2 / 15)
    p = p * s + (1 / 3)
    return tl.where(tl.abs(a) < 0.1, a * s * p, a - h)


@triton.jit
def _solve(r, stretch):
    """The root of a + (stretch - 1) tanh(a) = r by Newton's method from one side; NaN where stretch < 0."""
    target = tl.abs(r)
    stretch = stretch + tl.zeros(r.shape, r.dtype)
    first, second = divide(target, stretch), target - (stretch - 1.0)
    near = exp(log(5.0 * target) * (1.0 / 3.0))
    falling = tl.minimum(first, second)
    falling = tl.where((near < 1.0) & (near < falling), near, falling)
    a = tl.where(target == 0.0, 0.0, tl.where(stretch >= 1.0, tl.maximum(first, second), falling))
    a = tl.where(target != target, target, a)
    side = tl.where(stretch >= 1.0, 1.0, -1.0)
    side = tl.where(tl.abs(a) < float("inf"), side, 0.0)
    step = 0
    while (tl.max(tl.abs(side), 0) > 0.0) & (step < _MOST_STEPS):
        h, slope = _tanh_with_slope(a)
        det = h * h + slope * stretch
        # Not rounded as IEEE asks: that takes a call, and a stack.
        following = a - (_minus_tanh(a, h) + stretch * h - target) / tl.where(det == 0.0, 1.0, det)
        moves = (following - a) * side > 0.0
        side = tl.where(moves, side, 0.0)
        a = tl.where(moves, following, a)
        step += 1
    return tl.where(stretch < 0.0, float("nan"), tl.where(r < 0, -a, a))


@triton.jit
def _forward_kernel(
    z,
    u,
    w,
    b,
    out,
    log_det,
    saved,
    batch,
    features,
    count,
    z_row,
    z_column,
    u_row,
    u_layer,
    w_row,
    w_layer,
    b_row,
    b_layer,
    SHARED: tl.constexpr,
    CONSTRAIN: tl.constexpr,
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
        vu = load_layer(u, own, column, u_row, u_layer, k, own_mask)
        vw = load_layer(w, own, column, w_row, w_layer, k, own_mask)
        vb = load_row_values(b + k.to(tl.int64) * b_layer, own, b_row, own < batch)
        missing, stretch, log_stretch = _layer(tl.sum(vu * vw, 1), tl.sum(vw * vw, 1), CONSTRAIN)
        a = tl.sum(point * vw, 1) + vb
        if INVERSE:
            a = _solve(a, stretch)
        if saved is not None:
            tl.store(saved + k.to(tl.int64) * batch + row, a, mask=inside)
        h, slope = _tanh_with_slope(a)
        total += _log_det(a, h * h + slope * stretch, stretch, log_stretch)
        change = (vu + missing[:, None] * vw) * h[:, None]
        point = point - change if INVERSE else point + change
    store_tile(out, row, column, features, point, mask)
    tl.store(log_det + row, -total if INVERSE else total, mask=inside)


@triton.jit
def _backward_kernel(
    grad_out,
    grad_log_det,
    z,
    u,
    w,
    b,
    saved,
    gz,
    gu,
    gw,
    gb,
    batch,
    features,
    count,
    grad_row,
    grad_column,
    grad_log_det_stride,
    z_row,
    z_column,
    u_row,
    u_layer,
    w_row,
    w_layer,
    SHARED: tl.constexpr,
    CONSTRAIN: tl.constexpr,
    INVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.arange(0, COLUMNS)
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
        if not INVERSE:
            for i in range(count):
                k = i + tl.zeros((), tl.int32)
                vu = load_layer(u, own, column, u_row, u_layer, k, own_mask)
                vw = load_layer(w, own, column, w_row, w_layer, k, own_mask)
                a = tl.load(saved + k.to(tl.int64) * batch + row, mask=inside, other=0.0)
                missing, _, _ = _layer(tl.sum(vu * vw, 1), tl.sum(vw * vw, 1), CONSTRAIN)
                h, _ = _tanh_with_slope(a)
                point += (vu + missing[:, None] * vw) * h[:, None]
        for i in range(count):
            k = i if INVERSE else count - 1 - i
            k = k + tl.zeros((), tl.int32)
            vu = load_layer(u, own, column, u_row, u_layer, k, own_mask)
            vw = load_layer(w, own, column, w_row, w_layer, k, own_mask)
            a = tl.load(saved + k.to(tl.int64) * batch + row, mask=inside, other=0.0)
            along, norm = tl.sum(vu * vw, 1), tl.sum(vw * vw, 1)
            missing, stretch, log_stretch = _layer(along, norm, CONSTRAIN)
            direction = vu + missing[:, None] * vw
            h, slope = _tanh_with_slope(a)
            det = h * h + slope * stretch
            small = _underflows(det, stretch)
            share = sigmoid(2.0 * log(tl.where(small & (a != 0.0), tl.abs(a), 1.0)) - log_stretch)
            share = tl.where(a == 0.0, 0.0, share)
            safe = tl.where(small, 1.0, det)
            by_tanh = divide(2.0 * h * (1.0 - stretch), safe)
            by_tanh = tl.where(small, divide(2.0 * share, tl.where(a == 0.0, 1.0, a)), by_tanh)
            by_stretch = divide(slope * stretch if CONSTRAIN else slope + 0.0 * stretch, safe)
            by_stretch = tl.where(small, 1.0 - share, by_stretch)
            ga = slope * (tl.sum(grad * direction, 1) + gl * by_tanh)
            change = direction * h[:, None]
            if INVERSE:
                ga = -divide(ga, det)
                gl_here = -gl
                grad += ga[:, None] * vw
                pushed = -h[:, None] * grad
                read = point
                point += change
            else:
                gl_here = gl
                pushed = h[:, None] * grad
                grad += ga[:, None] * vw
                point -= change
                read = point
            if gu is not None or gw is not None or gb is not None:
                g_direction = over_rows(pushed, SHARED)
                across = tl.sum(g_direction * vw, 1)
                g_stretch = values_over_rows(gl_here * by_stretch, SHARED)
                if CONSTRAIN:
                    singular = norm == 0.0
                    inverse_norm = tl.where(singular, 0.0, divide(norm * 0.0 + 1.0, tl.where(singular, 1.0, norm)))
                    steep = divide(sigmoid(along), tl.where(along < -18.0, 1.0, softplus(along)))
                    steep = tl.where(along < -18.0, 1.0 - 0.5 * exp(tl.minimum(along, 0.0)), steep)
                    g_along = g_stretch * tl.where(singular, 0.0, steep) - across * sigmoid(-along) * inverse_norm
                    g_norm = -2.0 * across * missing * inverse_norm
                else:
                    g_along = g_stretch
                    g_norm = along * 0.0
                offsets = (at.to(tl.int64)[:, None] * count + k) * features + column[None, :]
                put(gu, offsets, g_direction + g_along[:, None] * vw, own_mask, again)
                g_w = over_rows(ga[:, None] * read, SHARED) + missing[:, None] * g_direction
                put(gw, offsets, g_w + g_along[:, None] * vu + g_norm[:, None] * vw, own_mask, again)
                put(gb, at.to(tl.int64) * count + k, values_over_rows(ga, SHARED), own < batch, again)
        store_tile(gz, row, column, features, grad, mask)


def forward(
    z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool, inverse: bool, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The last z (B, D), log_det (B,) and, where asked for, what tanh is taken of (K, B).

    z is (B, D) at any strides, u and w (K, D) or (B, K, D) with features one after the other, b (K,) or (B, K).
    """
    batch, features = z.shape
    dtype = accumulator(z.dtype)
    out, log_det = z.new_empty((batch, features)), z.new_empty(batch, dtype=dtype)
    saved = z.new_empty((u.shape[-2], batch) if save else (0, 0), dtype=dtype)
    if batch == 0:
        return out, log_det, saved
    shared = u.dim() == 2
    tile = layer_tile(z, persistent=False)
    with on_device(z):
        _forward_kernel[(tile.programs,)](
            z,
            u,
            w,
            b,
            out,
            log_det,
            saved if save else None,
            batch,
            features,
            u.shape[-2],
            *z.stride(),
            *layer_strides(u, shared),
            *layer_strides(w, shared),
            *layer_strides(b, shared),
            SHARED=shared,
            CONSTRAIN=constrain,
            INVERSE=inverse,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
        )
    return out, log_det, saved


def backward(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    u: Tensor,
    w: Tensor,
    b: Tensor,
    saved: Tensor,
    constrain: bool,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of z, u, w and b, those that are needed; z is what the first layer reads, the inverse's result."""
    batch, features = z.shape
    shared = u.dim() == 2
    if batch == 0:
        first, *rest = (torch.zeros_like(t) if n else t.new_empty(0) for t, n in zip((z, u, w, b), needs, strict=True))
        return first, rest[0], rest[1], rest[2]
    tile = layer_tile(z, persistent=shared and any(needs[1:]))
    gz = z.new_empty((batch, features)) if needs[0] else None
    rooms = [gradient_room(t, n, shared, tile.programs) for t, n in zip((u, w, b), needs[1:], strict=True)]
    with on_device(z):
        _backward_kernel[(tile.programs,)](
            grad_out,
            grad_log_det,
            z,
            u,
            w,
            b,
            saved,
            gz,
            *rooms,
            batch,
            features,
            u.shape[-2],
            *strides(grad_out),
            0 if grad_log_det is None else grad_log_det.stride(0),
            *z.stride(),
            *layer_strides(u, shared),
            *layer_strides(w, shared),
            SHARED=shared,
            CONSTRAIN=constrain,
            INVERSE=inverse,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
        )
    gu, gw, gb = (gathered(room, t, shared) for room, t in zip(rooms, (u, w, b), strict=True))
    return z.new_empty(0) if gz is None else gz, gu, gw, gb
