"""The log-probabilities of what decoders put out, and their gradients: every input read once."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, on_device
from ._math import divide, exp, expm1, log, log1p
from ._rows import load_row_values, load_tile, row_tile, store_tile


@triton.jit
def _unlikely(x, logit):
    """How much of x is the outcome that the logit makes the less likely one."""
    return tl.where(logit < 0, x, 1.0 - x)


@triton.jit
def _bernoulli_forward_kernel(
    x,
    logits,
    log_prob,
    batch,
    features,
    x_row,
    x_column,
    logits_row,
    logits_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), log_prob.dtype.element_ty)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        logit = load_tile(logits, row, column, logits_row, logits_column, mask)
        share = _unlikely(load_tile(x, row, column, x_row, x_column, mask), logit)
        size = tl.where(logit < 0, -logit, logit)
        cost = tl.where(share == 0, 0.0, share * size)
        sums += tl.where(mask, -cost - log1p(exp(-size)), 0.0)
    tl.store(log_prob + row, tl.sum(sums, 1), mask=row < batch)


@triton.jit
def _bernoulli_backward_kernel(
    grad,
    x,
    logits,
    gx,
    glogits,
    batch,
    features,
    grad_row,
    x_row,
    x_column,
    logits_row,
    logits_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    g = load_row_values(grad, row, grad_row, row < batch)[:, None]
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        logit = load_tile(logits, row, column, logits_row, logits_column, mask)
        share = _unlikely(load_tile(x, row, column, x_row, x_column, mask), logit)
        size = tl.where(logit < 0, -logit, logit)
        t = exp(-size)
        excess = divide(t, 1.0 + t) - share
        store_tile(glogits, row, column, features, g * tl.where(logit < 0, -excess, excess), mask)
        store_tile(gx, row, column, features, tl.where((share == 0) & (size == float("inf")), 0.0, g * logit), mask)


@triton.jit
def _log_sigmoid(x):
    return tl.minimum(x, 0.0) - log1p(exp(-tl.abs(x)))


@triton.jit
def _sigmoid(x):
    t = exp(-tl.abs(x))
    return divide(tl.where(x < 0, t, t * 0 + 1.0), 1.0 + t)


@triton.jit
def _log_1_minus_exp(d):
    """log(1 - e^-d) for d > 0."""
    near = d < 0.69
    return tl.where(near, log(-expm1(-tl.where(near, d, 1.0))), log1p(-exp(-tl.where(near, 1.0, d))))


@triton.jit
def _logistic_forward_kernel(
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
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), log_prob.dtype.element_ty)
    # A division in the sums' dtype: a Python number would be float32.
    half = tl.full((), 0.5, sums.dtype) / (LEVELS - 1)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        u = load_tile(x, row, column, x_row, x_column, mask)
        difference = u - load_tile(mean, row, column, mean_row, mean_column, mask)
        precision = exp(-load_tile(log_scale, row, column, log_scale_row, log_scale_column, mask))
        below = _log_sigmoid((difference + half) * precision)
        above = _log_sigmoid(-(difference - half) * precision)
        inside = below + above + _log_1_minus_exp(2 * half * precision)
        term = tl.where(u < half, below, tl.where(u > 1 - half, above, inside))
        sums += tl.where(mask, term, 0.0)
    tl.store(log_prob + row, tl.sum(sums, 1), mask=row < batch)


@triton.jit
def _logistic_backward_kernel(
    grad,
    x,
    mean,
    log_scale,
    gx,
    gmean,
    glog_scale,
    batch,
    features,
    grad_row,
    x_row,
    x_column,
    mean_row,
    mean_column,
    log_scale_row,
    log_scale_column,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    g = load_row_values(grad, row, grad_row, row < batch)[:, None]
    half = tl.full((), 0.5, g.dtype) / (LEVELS - 1)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        u = load_tile(x, row, column, x_row, x_column, mask)
        difference = u - load_tile(mean, row, column, mean_row, mean_column, mask)
        precision = exp(-load_tile(log_scale, row, column, log_scale_row, log_scale_column, mask))
        upper, lower = (difference + half) * precision, (difference - half) * precision
        first, last = u < half, u > 1 - half
        from_upper = tl.where(last, 0.0, _sigmoid(-upper))
        from_lower = tl.where(first, 0.0, _sigmoid(lower))
        width = 2 * half * precision
        ratio = tl.where(first | last, 0.0, divide(width, expm1(width)))
        by_x = g * precision * (from_upper - from_lower)
        store_tile(gx, row, column, features, by_x, mask)
        store_tile(gmean, row, column, features, -by_x, mask)
        store_tile(glog_scale, row, column, features, g * (lower * from_lower - upper * from_upper - ratio), mask)


@triton.jit
def _categorical_tile(logits, row, start, batch, categories, logits_row, logits_column, COLUMNS: tl.constexpr):
    """A tile of logits, -inf beyond the last category."""
    column = start + tl.arange(0, COLUMNS)
    mask = (row < batch)[:, None] & (column < categories)[None, :]
    logit = load_tile(logits, row, column, logits_row, logits_column, mask)
    # Rows beyond the last hold zeros.
    return column, mask, tl.where((column < categories)[None, :], logit, -float("inf"))


@triton.jit
def _normalise(logits, row, batch, categories, logits_row, logits_column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The largest logit of each row, and the sum of e^(logit - largest)."""
    _, _, logit = _categorical_tile(logits, row, 0, batch, categories, logits_row, logits_column, COLUMNS)
    peak = tl.max(logit, 1)
    for start in range(COLUMNS, categories, COLUMNS):
        _, _, logit = _categorical_tile(logits, row, start, batch, categories, logits_row, logits_column, COLUMNS)
        peak = tl.maximum(peak, tl.max(logit, 1))
    sums = tl.zeros((ROWS, COLUMNS), peak.dtype)
    for start in range(0, categories, COLUMNS):
        _, _, logit = _categorical_tile(logits, row, start, batch, categories, logits_row, logits_column, COLUMNS)
        sums += exp(logit - peak[:, None])
    return peak, tl.sum(sums, 1)


@triton.jit
def _categorical_forward_kernel(
    x,
    logits,
    log_prob,
    batch,
    categories,
    x_row,
    logits_row,
    logits_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    peak, total = _normalise(logits, row, batch, categories, logits_row, logits_column, ROWS, COLUMNS)
    chosen = tl.load(x + row.to(tl.int64) * x_row, mask=row < batch, other=0)
    known = (chosen >= 0) & (chosen < categories)
    at = logits + row.to(tl.int64) * logits_row + tl.where(known, chosen, 0) * logits_column
    logit = tl.load(at, mask=row < batch, other=0.0).to(peak.dtype)
    tl.store(log_prob + row, tl.where(known, logit - peak - log(total), float("nan")), mask=row < batch)


@triton.jit
def _categorical_backward_kernel(
    grad,
    x,
    logits,
    glogits,
    batch,
    categories,
    features,
    grad_row,
    x_row,
    logits_row,
    logits_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    peak, total = _normalise(logits, row, batch, categories, logits_row, logits_column, ROWS, COLUMNS)
    chosen = tl.load(x + row.to(tl.int64) * x_row, mask=row < batch, other=0)
    g = load_row_values(grad, row // features, grad_row, row < batch)[:, None]
    for start in range(0, categories, COLUMNS):
        column, mask, logit = _categorical_tile(logits, row, start, batch, categories, logits_row, logits_column, COLUMNS)
        probability = divide(exp(logit - peak[:, None]), tl.broadcast_to(total[:, None], logit.shape))
        hit = tl.where(column[None, :] == chosen[:, None], 1.0, 0.0)
        store_tile(glogits, row, column, categories, g * (hit - probability), mask)


def _per_row(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], dtype=accumulator(x.dtype))


def bernoulli_forward(x: Tensor, logits: Tensor) -> Tensor:
    """log_prob (B,) of x under logits (B, D), of any strides."""
    log_prob = _per_row(x)
    if x.shape[0] > 0:
        tile = row_tile(x)
        with on_device(x):
            _bernoulli_forward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                x,
                logits,
                log_prob,
                *x.shape,
                *x.stride(),
                *logits.stride(),
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    return log_prob


def bernoulli_backward(grad: Tensor, x: Tensor, logits: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """The gradients (B, D) of x and logits, those that are needed, else of no elements."""
    gx, glogits = (t.new_empty(t.shape if n else (0,)) for t, n in zip((x, logits), needs, strict=True))
    if x.shape[0] > 0 and any(needs):
        tile = row_tile(x)
        with on_device(x):
            _bernoulli_backward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                grad,
                x,
                logits,
                gx if needs[0] else None,
                glogits if needs[1] else None,
                *x.shape,
                grad.stride(0),
                *x.stride(),
                *logits.stride(),
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    return gx, glogits


def discretized_logistic_forward(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """log_prob (B,) of x, mean and log_scale (B, D), of any strides."""
    log_prob = _per_row(x)
    if x.shape[0] > 0:
        tile = row_tile(x)
        with on_device(x):
            _logistic_forward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                x,
                mean,
                log_scale,
                log_prob,
                *x.shape,
                *x.stride(),
                *mean.stride(),
                *log_scale.stride(),
                LEVELS=levels,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    return log_prob


def discretized_logistic_backward(
    grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (B, D) of x, mean and log_scale, those that are needed, else of no elements."""
    grads = [t.new_empty(t.shape if n else (0,)) for t, n in zip((x, mean, log_scale), needs, strict=True)]
    if x.shape[0] > 0 and any(needs):
        tile = row_tile(x)
        with on_device(x):
            _logistic_backward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                grad,
                x,
                mean,
                log_scale,
                *(g if n else None for g, n in zip(grads, needs, strict=True)),
                *x.shape,
                grad.stride(0),
                *x.stride(),
                *mean.stride(),
                *log_scale.stride(),
                LEVELS=levels,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    gx, gmean, glog_scale = grads
    return gx, gmean, glog_scale


def categorical_forward(x: Tensor, logits: Tensor) -> Tensor:
    """The log-probability of each category x (N,) under logits (N, C); NaN where x is none."""
    log_prob = _per_row(logits)
    if x.shape[0] > 0:
        tile = row_tile(logits)
        with on_device(logits):
            _categorical_forward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                x,
                logits,
                log_prob,
                *logits.shape,
                *x.stride(),
                *logits.stride(),
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    return log_prob


def categorical_backward(grad: Tensor, x: Tensor, logits: Tensor, features: int) -> Tensor:
    """The gradient of logits (N, C) from grad (N / features,)."""
    glogits = logits.new_empty(logits.shape)
    if x.shape[0] > 0:
        tile = row_tile(logits)
        with on_device(logits):
            _categorical_backward_kernel[(triton.cdiv(x.shape[0], tile.rows),)](
                grad,
                x,
                logits,
                glogits,
                *logits.shape,
                features,
                grad.stride(0),
                *x.stride(),
                *logits.stride(),
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                num_warps=tile.num_warps,
            )
    return glogits
