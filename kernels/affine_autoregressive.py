"""The affine autoregressive transform and its gradient: every input read once, every output written once."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._affine import affine, affine_gradients
from ._launch import accumulator
from ._rows import interleaved, launch_rows, load_pair, load_row_values, load_tile, row_tile, store_tile, strides
from ._scale_map import log_scale_of, through_scale_map


@triton.jit
def _forward_kernel(
    x,
    shift,
    log_scale,
    log_det,
    z,
    total,
    batch,
    features,
    x_row,
    x_column,
    shift_row,
    shift_column,
    log_scale_row,
    log_scale_column,
    log_det_stride,
    INVERSE: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), total.dtype.element_ty)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        u = load_tile(x, row, column, x_row, x_column, mask)
        t, a = load_pair(
            shift,
            log_scale,
            row,
            start,
            batch,
            features,
            shift_row,
            shift_column,
            log_scale_row,
            log_scale_column,
            INTERLEAVED,
            COLUMNS,
        )
        s = log_scale_of(a, KIND, A, B)
        # A coupling's map is the inverse of this one.
        store_tile(z, row, column, features, affine(u, t, s, not INVERSE), mask)
        sums += tl.where(mask, s, 0.0)
    change = tl.sum(sums, 1) if INVERSE else -tl.sum(sums, 1)
    tl.store(total + row, load_row_values(log_det, row, log_det_stride, row < batch) + change, mask=row < batch)


@triton.jit
def _backward_kernel(
    grad_z,
    grad_log_det,
    x,
    shift,
    log_scale,
    gx,
    gshift,
    glog_scale,
    batch,
    features,
    grad_row,
    grad_column,
    grad_log_det_stride,
    x_row,
    x_column,
    shift_row,
    shift_column,
    log_scale_row,
    log_scale_column,
    INVERSE: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    gl = load_row_values(grad_log_det, row, grad_log_det_stride, row < batch)[:, None]
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        g = load_tile(grad_z, row, column, grad_row, grad_column, mask)
        u = load_tile(x, row, column, x_row, x_column, mask)
        t, a = load_pair(
            shift,
            log_scale,
            row,
            start,
            batch,
            features,
            shift_row,
            shift_column,
            log_scale_row,
            log_scale_column,
            INTERLEAVED,
            COLUMNS,
        )
        s = log_scale_of(a, KIND, A, B)
        gu, gt, gs = affine_gradients(g, gl, u, t, s, not INVERSE)
        store_tile(gx, row, column, features, gu, mask)
        store_tile(gshift, row, column, features, gt, mask)
        store_tile(glog_scale, row, column, features, through_scale_map(gs, a, KIND, A, B), mask)


def forward(
    x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor | None, inverse: bool, kind: int, a: float, b: float
) -> tuple[Tensor, Tensor]:
    """z (B, D) and log_det (B,) of x, shift and log_scale (B, D), of any strides."""
    batch, features = x.shape
    z = x.new_empty((batch, features))
    total = x.new_empty(batch, dtype=accumulator(x.dtype))
    if batch == 0:
        return z, total
    launch_rows(
        _forward_kernel,
        x,
        row_tile(x),
        x,
        shift,
        log_scale,
        log_det,
        z,
        total,
        batch,
        features,
        *x.stride(),
        *shift.stride(),
        *log_scale.stride(),
        0 if log_det is None else log_det.stride(0),
        INVERSE=inverse,
        KIND=kind,
        A=a,
        B=b,
        INTERLEAVED=interleaved(shift, log_scale),
    )
    return z, total


def backward(
    grad_z: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    inverse: bool,
    kind: int,
    a: float,
    b: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients (B, D) of x, shift and log_scale, those that are needed; an absent incoming gradient is zero."""
    batch, features = x.shape
    gx, gshift, glog_scale = (x.new_empty((batch, features)) if n else None for n in needs)
    if batch == 0 or not any(needs):
        return gx, gshift, glog_scale
    launch_rows(
        _backward_kernel,
        x,
        row_tile(x),
        grad_z,
        grad_log_det,
        x,
        shift,
        log_scale,
        gx,
        gshift,
        glog_scale,
        batch,
        features,
        *strides(grad_z),
        0 if grad_log_det is None else grad_log_det.stride(0),
        *x.stride(),
        *shift.stride(),
        *log_scale.stride(),
        INVERSE=inverse,
        KIND=kind,
        A=a,
        B=b,
        INTERLEAVED=interleaved(shift, log_scale),
    )
    return gx, gshift, glog_scale
