"""The log-density of a mixture of Gaussians and its gradient: tiles of rows x components, summed up as they come.

Nothing of the size rows x components x features is made. The backward pass makes the tiles again, once for the rows' gradient
and once for the components'.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, device_of, on_device
from ._math import HALF_LOG_2_PI, exp, log, widen

_ROWS, _COMPONENTS = 32, 32


@triton.jit
def _column(pointer, index, f, row_stride, column_stride, mask):
    return widen(tl.load(pointer + index.to(tl.int64) * row_stride + f * column_stride, mask=mask, other=0.0))


@triton.jit
def _log_densities(
    x,
    log_weights,
    means,
    log_scales,
    row,
    component,
    batch,
    components,
    features,
    x_row,
    x_column,
    weights_row,
    weights_column,
    means_row,
    means_column,
    scales_row,
    scales_column,
):
    """The weighted log-densities of a tile of rows under a tile of components, -inf beyond the last component."""
    inside = component < components
    mask = (row < batch)[:, None] & inside[None, :]
    at = row.to(tl.int64)[:, None] * weights_row + component.to(tl.int64)[None, :] * weights_column
    weights = widen(tl.load(log_weights + at, mask=mask, other=0.0))
    distances = tl.zeros(weights.shape, weights.dtype)
    constants = tl.sum(distances, 0)
    for f in range(features):
        scale = _column(log_scales, component, f, scales_row, scales_column, inside)
        mean = _column(means, component, f, means_row, means_column, inside)
        z = (_column(x, row, f, x_row, x_column, row < batch)[:, None] - mean[None, :]) * exp(-scale)[None, :]
        distances += z * z
        constants += scale
    # In their dtype: an integer times the constant would be float32.
    constants += (tl.zeros(constants.shape, constants.dtype) + features) * HALF_LOG_2_PI
    return tl.where(inside[None, :], weights - constants[None, :] - 0.5 * distances, -float("inf"))


@triton.jit
def _forward_kernel(
    x,
    log_weights,
    means,
    log_scales,
    log_prob,
    remainder,
    batch,
    components,
    features,
    x_row,
    x_column,
    weights_row,
    weights_column,
    means_row,
    means_column,
    scales_row,
    scales_column,
    ROWS: tl.constexpr,
    COMPONENTS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    largest = tl.full((ROWS,), -float("inf"), log_prob.dtype.element_ty)
    total = tl.zeros((ROWS,), log_prob.dtype.element_ty)
    for start in range(0, components, COMPONENTS):
        density = _log_densities(
            x,
            log_weights,
            means,
            log_scales,
            row,
            start + tl.arange(0, COMPONENTS),
            batch,
            components,
            features,
            x_row,
            x_column,
            weights_row,
            weights_column,
            means_row,
            means_column,
            scales_row,
            scales_column,
        )
        peak = tl.maximum(largest, tl.max(density, 1))
        # Where all are -inf so far, 0 is taken off.
        shift = tl.where(peak == -float("inf"), 0.0, peak)
        total = total * exp(largest - shift) + tl.sum(exp(density - shift[:, None]), 1)
        largest = peak
    shift = tl.where(largest == -float("inf"), 0.0, largest)
    rest = log(total)
    result = shift + rest
    lost = tl.where(tl.abs(result) < float("inf"), (shift - result) + rest, 0.0)
    tl.store(log_prob + row, result, mask=row < batch)
    tl.store(remainder + row, lost, mask=row < batch)


@triton.jit
def _grad_rows_kernel(
    grad,
    log_prob,
    remainder,
    x,
    log_weights,
    means,
    log_scales,
    gx,
    gweights,
    sums,
    batch,
    components,
    features,
    grad_row,
    x_row,
    x_column,
    weights_row,
    weights_column,
    means_row,
    means_column,
    scales_row,
    scales_column,
    ROWS: tl.constexpr,
    COMPONENTS: tl.constexpr,
):
    """The gradients of x, summed in `sums` (features, rows), and of weights that each row has for itself."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = row < batch
    g = widen(tl.load(grad + row.to(tl.int64) * grad_row, mask=there, other=0.0))
    norm = tl.load(log_prob + row, mask=there, other=0.0)
    lost = tl.load(remainder + row, mask=there, other=0.0)
    for start in range(0, components, COMPONENTS):
        component = start + tl.arange(0, COMPONENTS)
        inside = component < components
        density = _log_densities(
            x,
            log_weights,
            means,
            log_scales,
            row,
            component,
            batch,
            components,
            features,
            x_row,
            x_column,
            weights_row,
            weights_column,
            means_row,
            means_column,
            scales_row,
            scales_column,
        )
        share = g[:, None] * exp((density - norm[:, None]) - lost[:, None])
        if gweights is not None:
            at = row.to(tl.int64)[:, None] * components + component[None, :]
            tl.store(gweights + at, share.to(gweights.dtype.element_ty), mask=there[:, None] & inside[None, :])
        if gx is not None:
            for f in range(features):
                precision = exp(-_column(log_scales, component, f, scales_row, scales_column, inside))
                mean = _column(means, component, f, means_row, means_column, inside)
                difference = _column(x, row, f, x_row, x_column, there)[:, None] - mean[None, :]
                pull = tl.sum(share * difference * (precision * precision)[None, :], 1)
                at = sums + batch.to(tl.int64) * f + row
                before = tl.load(at, mask=there & (row * 0 + start > 0), other=0.0)
                tl.store(at, before - pull, mask=there)
            # Other threads of the program may read the sums in the next round.
            tl.debug_barrier()


@triton.jit
def _grad_components_kernel(
    grad,
    log_prob,
    remainder,
    x,
    log_weights,
    means,
    log_scales,
    sums,
    batch,
    components,
    features,
    rows_per_share,
    grad_row,
    x_row,
    x_column,
    weights_row,
    weights_column,
    means_row,
    means_column,
    scales_row,
    scales_column,
    MOMENTS: tl.constexpr,
    ROWS: tl.constexpr,
    COMPONENTS: tl.constexpr,
):
    """One share of the rows' sums for a tile of components: weights, then means' and log-scales' for feature after feature."""
    component = tl.program_id(0) * COMPONENTS + tl.arange(0, COMPONENTS)
    inside = component < components
    own = sums + tl.program_id(1).to(tl.int64) * (2 * features + 1) * components + component
    first = tl.program_id(1) * rows_per_share
    total = tl.zeros((COMPONENTS,), sums.dtype.element_ty)
    for start in range(first, tl.minimum(first + rows_per_share, batch), ROWS):
        row = start + tl.arange(0, ROWS)
        there = row < batch
        g = widen(tl.load(grad + row.to(tl.int64) * grad_row, mask=there, other=0.0))
        norm = tl.load(log_prob + row, mask=there, other=0.0)
        lost = tl.load(remainder + row, mask=there, other=0.0)
        density = _log_densities(
            x,
            log_weights,
            means,
            log_scales,
            row,
            component,
            batch,
            components,
            features,
            x_row,
            x_column,
            weights_row,
            weights_column,
            means_row,
            means_column,
            scales_row,
            scales_column,
        )
        share = tl.where(there[:, None], g[:, None] * exp((density - norm[:, None]) - lost[:, None]), 0.0)
        total += tl.sum(share, 0)
        if MOMENTS:
            for f in range(features):
                precision = exp(-_column(log_scales, component, f, scales_row, scales_column, inside))
                mean = _column(means, component, f, means_row, means_column, inside)
                difference = _column(x, row, f, x_row, x_column, there)[:, None] - mean[None, :]
                pull = share * difference
                at = own + (1 + 2 * f) * components
                started = inside & (component * 0 + start > first)
                factor = precision * precision
                by_mean = tl.load(at, mask=started, other=0.0) + tl.sum(pull, 0) * factor
                by_scale = tl.load(at + components, mask=started, other=0.0) + tl.sum(pull * difference, 0) * factor
                tl.store(at, by_mean, mask=inside)
                tl.store(at + components, by_scale, mask=inside)
            # Other threads of the program may read the sums in the next round.
            tl.debug_barrier()
    tl.store(own, total, mask=inside)


def _strides(log_weights: Tensor, *others: Tensor) -> tuple[int, ...]:
    """The strides of x, log_weights, means and log_scales; weights that all rows share do not step from row to row."""
    x, means, log_scales = others
    weights = (0, log_weights.stride(0)) if log_weights.dim() == 1 else log_weights.stride()
    return (*x.stride(), *weights, *means.stride(), *log_scales.stride())


def forward(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """log_prob (B,) of x (B, D), and what rounding took off it, under components (K, D) with log-weights (K,) or (B, K)."""
    log_prob, remainder = (x.new_empty(x.shape[0], dtype=accumulator(x.dtype)) for _ in range(2))
    if x.shape[0] > 0:
        with on_device(x):
            _forward_kernel[(triton.cdiv(x.shape[0], _ROWS),)](
                x,
                log_weights,
                means,
                log_scales,
                log_prob,
                remainder,
                x.shape[0],
                *means.shape,
                *_strides(log_weights, x, means, log_scales),
                ROWS=_ROWS,
                COMPONENTS=_COMPONENTS,
            )
    return log_prob, remainder


def backward(
    grad: Tensor,
    log_prob: Tensor,
    remainder: Tensor,
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    log_scales: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, log_weights, means and log_scales, those that are needed, else of no elements."""
    inputs = (x, log_weights, means, log_scales)
    room = [t.new_empty(t.shape if n else (0,)) for t, n in zip(inputs, needs, strict=True)]
    gx, gweights, gmeans, gscales = room
    own_weights = needs[1] and log_weights.dim() == 2
    if needs[0] or own_weights:
        _grad_rows(grad, log_prob, remainder, inputs, gx if needs[0] else None, gweights if own_weights else None)
    if needs[2] or needs[3] or (needs[1] and not own_weights):
        totals = _grad_components(grad, log_prob, remainder, inputs, needs[2] or needs[3])
        moments = totals[1:].view(-1, 2, len(means))
        if needs[1] and not own_weights:
            gweights.copy_(totals[0])
        if needs[2]:
            gmeans.copy_(moments[:, 0].T)
        if needs[3]:
            gscales.copy_(moments[:, 1].T - totals[0][:, None])
    return gx, gweights, gmeans, gscales


def _grad_rows(
    grad: Tensor, log_prob: Tensor, remainder: Tensor, inputs: tuple[Tensor, ...], gx: Tensor | None, gweights: Tensor | None
) -> None:
    x, log_weights, means, log_scales = inputs
    if x.shape[0] == 0:
        return
    sums = log_prob.new_empty((0,) if gx is None else x.shape[::-1])
    with on_device(x):
        _grad_rows_kernel[(triton.cdiv(x.shape[0], _ROWS),)](
            grad,
            log_prob,
            remainder,
            x,
            log_weights,
            means,
            log_scales,
            gx,
            gweights,
            sums,
            x.shape[0],
            *means.shape,
            grad.stride(0),
            *_strides(log_weights, x, means, log_scales),
            ROWS=_ROWS,
            COMPONENTS=_COMPONENTS,
        )
    if gx is not None:
        gx.copy_(sums.T)


def _grad_components(grad: Tensor, log_prob: Tensor, remainder: Tensor, inputs: tuple[Tensor, ...], moments: bool) -> Tensor:
    """Sums over all rows (1 + 2 D, K): of the weights' shares, then by mean and by log-scale for feature after feature."""
    x, log_weights, means, log_scales = inputs
    batch, (components, features) = x.shape[0], means.shape
    tiles = triton.cdiv(components, _COMPONENTS)
    # Shares of the rows, so many that every multiprocessor has work, but each of some tiles.
    shares = max(1, min(triton.cdiv(4 * device_of(x).processors, tiles), triton.cdiv(batch, 8 * _ROWS)))
    rows = triton.cdiv(triton.cdiv(batch, shares), _ROWS) * _ROWS
    sums = log_prob.new_zeros((shares, 1 + 2 * features, components))
    if batch == 0:
        return sums[0]
    with on_device(x):
        _grad_components_kernel[(tiles, shares)](
            grad,
            log_prob,
            remainder,
            x,
            log_weights,
            means,
            log_scales,
            sums,
            batch,
            components,
            features,
            rows,
            grad.stride(0),
            *_strides(log_weights, x, means, log_scales),
            MOMENTS=moments,
            ROWS=_ROWS,
            COMPONENTS=_COMPONENTS,
        )
    return sums.sum(0)
