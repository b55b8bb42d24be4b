"""The log-density of a diagonal Gaussian and its gradient: every input read once."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator
from ._math import HALF_LOG_2_PI, exp
from ._rows import interleaved, launch_rows, load_pair, load_row_values, load_tile, row_tile, store_tile, strides
from ._scale_map import log_scale_of, through_scale_map


@triton.jit
def _forward_kernel(
    x,
    mean,
    log_scale,
    log_prob,
    batch,
    features,
    x_row,
    x_column,
    mean_row,
    mean_column,
    log_scale_row,
    log_scale_column,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), log_prob.dtype.element_ty)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        u = load_tile(x, row, column, x_row, x_column, mask)
        m, a = load_pair(
            mean,
            log_scale,
            row,
            start,
            batch,
            features,
            mean_row,
            mean_column,
            log_scale_row,
            log_scale_column,
            INTERLEAVED,
            COLUMNS,
        )
        s = log_scale_of(a, KIND, A, B)
        z = (u - m) * exp(-s)
        sums += tl.where(mask, 0.5 * z * z + s, 0.0)
    # In the sums' dtype: an integer times the constant would be float32.
    constant = (tl.zeros((ROWS,), sums.dtype) + features) * HALF_LOG_2_PI
    tl.store(log_prob + row, -tl.sum(sums, 1) - constant, mask=row < batch)


@triton.jit
def _backward_kernel(
    grad,
    x,
    mean,
    log_scale,
    gx,
    gmean,
    glog_scale,
    batch,
    features,
    grad_stride,
    x_row,
    x_column,
    mean_row,
    mean_column,
    log_scale_row,
    log_scale_column,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    g = load_row_values(grad, row, grad_stride, row < batch)[:, None]
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        u = load_tile(x, row, column, x_row, x_column, mask)
        m, a = load_pair(
            mean,
            log_scale,
            row,
            start,
            batch,
            features,
            mean_row,
            mean_column,
            log_scale_row,
            log_scale_column,
            INTERLEAVED,
            COLUMNS,
        )
        precision = exp(-log_scale_of(a, KIND, A, B))
        z = (u - m) * precision
        gm = g * z * precision
        store_tile(gmean, row, column, features, gm, mask)
        store_tile(gx, row, column, features, -gm, mask)
        store_tile(glog_scale, row, column, features, through_scale_map(g * (z * z - 1.0), a, KIND, A, B), mask)


def forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None, kind: int, a: float, b: float) -> Tensor:
    """log_prob (B,) of x, mean and log_scale (B, D), of any strides; an absent mean or log-scale is 0."""
    batch, features = x.shape
    log_prob = x.new_empty(batch, dtype=accumulator(x.dtype))
    if batch == 0:
        return log_prob
    launch_rows(
        _forward_kernel,
        x,
        row_tile(x),
        x,
        mean,
        log_scale,
        log_prob,
        batch,
        features,
        *x.stride(),
        *strides(mean),
        *strides(log_scale),
        # Scale maps do not map 0 to 0.
        KIND=0 if log_scale is None else kind,
        A=a,
        B=b,
        INTERLEAVED=interleaved(mean, log_scale),
    )
    return log_prob


def backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor | None,
    log_scale: Tensor | None,
    kind: int,
    a: float,
    b: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients (B, D) of x, mean and log_scale, those that are needed, from grad (B,)."""
    batch, features = x.shape
    gx, gmean, glog_scale = (x.new_empty((batch, features)) if n else None for n in needs)
    if batch == 0 or not any(needs):
        return gx, gmean, glog_scale
    launch_rows(
        _backward_kernel,
        x,
        row_tile(x),
        grad,
        x,
        mean,
        log_scale,
        gx,
        gmean,
        glog_scale,
        batch,
        features,
        grad.stride(0),
        *x.stride(),
        *strides(mean),
        *strides(log_scale),
        KIND=0 if log_scale is None else kind,
        A=a,
        B=b,
        INTERLEAVED=interleaved(mean, log_scale),
    )
    return gx, gmean, glog_scale
