"""Samples of a diagonal Gaussian with its divergence or log-ratio, and their gradients: noise is made where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, on_device
from ._math import exp, expm1
from ._philox import normal_tile
from ._rows import load_row_values, load_tile, row_tile, store_tile, strides


@triton.jit
def _exp_minus_1_minus(d):
    """e^d - 1 - d: below 1/2 by its series, where the difference would lose digits."""
    near = tl.abs(d) < 0.5
    small = tl.where(near, d, 0.0)
    series = tl.full(d.shape, 1.0, d.dtype)
    for i in tl.static_range(12):
        series = 1.0 + small / (14 - i) * series
    return tl.where(near, 0.5 * small * small * series, expm1(tl.where(near, 0.0, d)) - d)


@triton.jit
def _load_sample(pointer, sample, row, column, sample_stride, row_stride, column_stride, mask):
    """A tile of a gradient of one sample, 0 for an absent one."""
    if pointer is None:
        return tl.zeros(mask.shape, tl.float32)
    else:
        return load_tile(pointer + sample * sample_stride, row, column, row_stride, column_stride, mask)


@triton.jit
def _kl_forward_kernel(
    mean,
    log_var,
    prior_mean,
    prior_log_var,
    seed,
    z,
    kl,
    batch,
    features,
    samples,
    mean_row,
    mean_column,
    log_var_row,
    log_var_column,
    prior_mean_row,
    prior_mean_column,
    prior_log_var_row,
    prior_log_var_column,
    FREE_BITS: tl.constexpr,
    QUADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = tl.load(seed)
    size = batch.to(tl.int64) * features
    sums = tl.zeros((ROWS, COLUMNS), kl.dtype.element_ty)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        m = load_tile(mean, row, column, mean_row, mean_column, mask)
        v = load_tile(log_var, row, column, log_var_row, log_var_column, mask)
        pm = load_tile(prior_mean, row, column, prior_mean_row, prior_mean_column, mask)
        pv = load_tile(prior_log_var, row, column, prior_log_var_row, prior_log_var_column, mask)
        difference = m - pm
        divergence = 0.5 * (_exp_minus_1_minus(v - pv) + difference * difference * exp(-pv))
        if FREE_BITS > 0:
            divergence = tl.where(divergence < FREE_BITS, FREE_BITS, divergence)
        sums += tl.where(mask, divergence, 0.0)
        scale = exp(0.5 * v)
        for sample in range(samples):
            first = row.to(tl.int64) * features + size * sample
            noise = normal_tile(key, first, start, COLUMNS, QUADS, kl.dtype.element_ty)
            store_tile(z + size * sample, row, column, features, m + scale * noise, mask)
    tl.store(kl + row, tl.sum(sums, 1), mask=row < batch)


@triton.jit
def _kl_backward_kernel(
    grad_z,
    grad_kl,
    mean,
    log_var,
    prior_mean,
    prior_log_var,
    seed,
    gmean,
    glog_var,
    gprior_mean,
    gprior_log_var,
    grad_z_sample,
    grad_z_row,
    grad_z_column,
    grad_kl_row,
    batch,
    features,
    samples,
    mean_row,
    mean_column,
    log_var_row,
    log_var_column,
    prior_mean_row,
    prior_mean_column,
    prior_log_var_row,
    prior_log_var_column,
    FREE_BITS: tl.constexpr,
    DTYPE: tl.constexpr,
    QUADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = tl.load(seed)
    size = batch.to(tl.int64) * features
    g = load_row_values(grad_kl, row, grad_kl_row, row < batch)[:, None]
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        m = load_tile(mean, row, column, mean_row, mean_column, mask)
        v = load_tile(log_var, row, column, log_var_row, log_var_column, mask)
        pm = load_tile(prior_mean, row, column, prior_mean_row, prior_mean_column, mask)
        pv = load_tile(prior_log_var, row, column, prior_log_var_row, prior_log_var_column, mask)
        by_mean, by_log_var = tl.zeros((ROWS, COLUMNS), DTYPE), tl.zeros((ROWS, COLUMNS), DTYPE)
        # Without a gradient its zeros must not meet an infinite scale or slope.
        if grad_z is not None:
            scale = exp(0.5 * v)
            for sample in range(samples):
                gz = _load_sample(grad_z, size * 0 + sample, row, column, grad_z_sample, grad_z_row, grad_z_column, mask)
                first = row.to(tl.int64) * features + size * sample
                noise = normal_tile(key, first, start, COLUMNS, QUADS, DTYPE)
                by_mean += gz
                by_log_var += 0.5 * gz * scale * noise
        if grad_kl is not None:
            difference = m - pm
            precision, slope, pull = exp(-pv), expm1(v - pv), g * difference
            if FREE_BITS > 0:
                divergence = 0.5 * (_exp_minus_1_minus(v - pv) + difference * difference * precision)
                pull = tl.where(divergence < FREE_BITS, 0.0, pull)
                slope = tl.where(divergence < FREE_BITS, 0.0, slope)
            pull *= precision
            by_mean += pull
            by_log_var += 0.5 * g * slope
            store_tile(gprior_mean, row, column, features, -pull, mask)
            store_tile(gprior_log_var, row, column, features, -0.5 * (g * slope + pull * difference), mask)
        else:
            store_tile(gprior_mean, row, column, features, tl.zeros((ROWS, COLUMNS), DTYPE), mask)
            store_tile(gprior_log_var, row, column, features, tl.zeros((ROWS, COLUMNS), DTYPE), mask)
        store_tile(gmean, row, column, features, by_mean, mask)
        store_tile(glog_var, row, column, features, by_log_var, mask)


@triton.jit
def _log_ratio_forward_kernel(
    mean,
    log_var,
    prior_mean,
    prior_log_var,
    seed,
    z,
    log_ratio,
    batch,
    features,
    samples,
    mean_row,
    mean_column,
    log_var_row,
    log_var_column,
    prior_mean_row,
    prior_mean_column,
    prior_log_var_row,
    prior_log_var_column,
    QUADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = tl.load(seed)
    size = batch.to(tl.int64) * features
    sample = tl.program_id(1)
    sums = tl.zeros((ROWS, COLUMNS), log_ratio.dtype.element_ty)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        m = load_tile(mean, row, column, mean_row, mean_column, mask)
        v = load_tile(log_var, row, column, log_var_row, log_var_column, mask)
        pm = load_tile(prior_mean, row, column, prior_mean_row, prior_mean_column, mask)
        pv = load_tile(prior_log_var, row, column, prior_log_var_row, prior_log_var_column, mask)
        first = row.to(tl.int64) * features + size * sample
        noise = normal_tile(key, first, start, COLUMNS, QUADS, log_ratio.dtype.element_ty)
        drawn = m + exp(0.5 * v) * noise
        store_tile(z + size * sample, row, column, features, drawn, mask)
        difference = drawn - pm
        sums += tl.where(mask, 0.5 * (difference * difference * exp(-pv) - noise * noise - (v - pv)), 0.0)
    tl.store(log_ratio + batch.to(tl.int64) * sample + row, tl.sum(sums, 1), mask=row < batch)


@triton.jit
def _log_ratio_backward_kernel(
    grad_z,
    grad_log_ratio,
    mean,
    log_var,
    prior_mean,
    prior_log_var,
    seed,
    gmean,
    glog_var,
    gprior_mean,
    gprior_log_var,
    grad_z_sample,
    grad_z_row,
    grad_z_column,
    grad_log_ratio_sample,
    grad_log_ratio_row,
    batch,
    features,
    samples,
    mean_row,
    mean_column,
    log_var_row,
    log_var_column,
    prior_mean_row,
    prior_mean_column,
    prior_log_var_row,
    prior_log_var_column,
    DTYPE: tl.constexpr,
    QUADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    key = tl.load(seed)
    size = batch.to(tl.int64) * features
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = (row < batch)[:, None] & (column < features)[None, :]
        m = load_tile(mean, row, column, mean_row, mean_column, mask)
        v = load_tile(log_var, row, column, log_var_row, log_var_column, mask)
        pm = load_tile(prior_mean, row, column, prior_mean_row, prior_mean_column, mask)
        pv = load_tile(prior_log_var, row, column, prior_log_var_row, prior_log_var_column, mask)
        scale, precision = exp(0.5 * v), exp(-pv)
        by_mean, by_log_var = tl.zeros((ROWS, COLUMNS), DTYPE), tl.zeros((ROWS, COLUMNS), DTYPE)
        by_prior_mean, by_prior_log_var = tl.zeros((ROWS, COLUMNS), DTYPE), tl.zeros((ROWS, COLUMNS), DTYPE)
        for sample in range(samples):
            through_z = _load_sample(grad_z, size * 0 + sample, row, column, grad_z_sample, grad_z_row, grad_z_column, mask)
            first = row.to(tl.int64) * features + size * sample
            noise = normal_tile(key, first, start, COLUMNS, QUADS, DTYPE)
            if grad_log_ratio is not None:
                at = grad_log_ratio + (size * 0 + sample) * grad_log_ratio_sample
                g = load_row_values(at, row, grad_log_ratio_row, row < batch)[:, None]
                difference = m + scale * noise - pm
                pull = g * difference * precision
                through_z += pull
                by_log_var -= 0.5 * g
                by_prior_mean -= pull
                by_prior_log_var += 0.5 * (g - pull * difference)
            by_mean += through_z
            by_log_var += 0.5 * through_z * scale * noise
        store_tile(gmean, row, column, features, by_mean, mask)
        store_tile(glog_var, row, column, features, by_log_var, mask)
        store_tile(gprior_mean, row, column, features, by_prior_mean, mask)
        store_tile(gprior_log_var, row, column, features, by_prior_log_var, mask)


_DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def _options(mean: Tensor, warps: int = 1) -> dict[str, Any]:
    """The tile, by so many times its warps; groups of four are shared where every row begins one."""
    tile = row_tile(mean)
    columns = max(tile.columns, 4)
    return {"QUADS": mean.shape[1] % 4 == 0, "ROWS": tile.rows, "COLUMNS": columns, "num_warps": warps * tile.num_warps}


def _gaussians(*tensors: Tensor | None) -> list[int]:
    return [stride for t in tensors for stride in strides(t)]


def kl_forward(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    """z (samples, B, D) and kl (B,) for Gaussians (B, D) of any strides; an absent prior is the standard normal."""
    batch, features = mean.shape
    z, kl = mean.new_empty((samples, batch, features)), mean.new_empty(batch, dtype=accumulator(mean.dtype))
    if batch == 0:
        return z, kl
    options = _options(mean)
    with on_device(mean):
        _kl_forward_kernel[(triton.cdiv(batch, options["ROWS"]),)](
            mean,
            log_var,
            prior_mean,
            prior_log_var,
            seed,
            z,
            kl,
            batch,
            features,
            samples,
            *_gaussians(mean, log_var, prior_mean, prior_log_var),
            FREE_BITS=free_bits,
            **options,
        )
    return z, kl


def kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients (B, D) of mean, log_var and the prior's, those that are needed, else of no elements."""
    batch, features = mean.shape
    grads = [mean.new_empty(mean.shape if n else (0,)) for n in needs]
    if batch > 0 and any(needs):
        options = _options(mean)
        with on_device(mean):
            _kl_backward_kernel[(triton.cdiv(batch, options["ROWS"]),)](
                grad_z,
                grad_kl,
                mean,
                log_var,
                prior_mean,
                prior_log_var,
                seed,
                *(g if n else None for g, n in zip(grads, needs, strict=True)),
                *((0, 0, 0) if grad_z is None else grad_z.stride()),
                0 if grad_kl is None else grad_kl.stride(0),
                batch,
                features,
                samples,
                *_gaussians(mean, log_var, prior_mean, prior_log_var),
                FREE_BITS=free_bits,
                DTYPE=_DTYPES[accumulator(mean.dtype)],
                **options,
            )
    a, b, c, d = grads
    return a, b, c, d


def log_ratio_forward(
    mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None, samples: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """z (samples, B, D) and its log-ratio (samples, B) for Gaussians (B, D) of any strides."""
    batch, features = mean.shape
    z = mean.new_empty((samples, batch, features))
    log_ratio = mean.new_empty((samples, batch), dtype=accumulator(mean.dtype))
    if batch == 0:
        return z, log_ratio
    options = _options(mean)
    with on_device(mean):
        _log_ratio_forward_kernel[(triton.cdiv(batch, options["ROWS"]), samples)](
            mean,
            log_var,
            prior_mean,
            prior_log_var,
            seed,
            z,
            log_ratio,
            batch,
            features,
            samples,
            *_gaussians(mean, log_var, prior_mean, prior_log_var),
            **options,
        )
    return z, log_ratio


def log_ratio_backward(
    grad_z: Tensor | None,
    grad_log_ratio: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    seed: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients (B, D) of mean, log_var and the prior's, those that are needed, else of no elements."""
    batch, features = mean.shape
    grads = [mean.new_empty(mean.shape if n else (0,)) for n in needs]
    if batch > 0 and any(needs):
        # Four gradients at a time take twice the registers.
        options = _options(mean, warps=2)
        with on_device(mean):
            _log_ratio_backward_kernel[(triton.cdiv(batch, options["ROWS"]),)](
                grad_z,
                grad_log_ratio,
                mean,
                log_var,
                prior_mean,
                prior_log_var,
                seed,
                *(g if n else None for g, n in zip(grads, needs, strict=True)),
                *((0, 0, 0) if grad_z is None else grad_z.stride()),
                *strides(grad_log_ratio),
                batch,
                features,
                samples,
                *_gaussians(mean, log_var, prior_mean, prior_log_var),
                DTYPE=_DTYPES[accumulator(mean.dtype)],
                **options,
            )
    a, b, c, d = grads
    return a, b, c, d
