"""Products with a masked weight and their gradients, tile by tile: each walks what any of its units sees, no more.

In sorted coordinates output o sees the first prefix[o] inputs, and prefix never falls; input j is seen by the outputs from
suffix[j] on. Weights are masked in registers, only where not all units of a tile see them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._activations import activate, through_activation
from ._math import INTERPRETED, widen


@triton.jit
def stored(order, index, mask):
    """Where the units of these sorted indices are stored."""
    if order is None:
        return index
    else:
        return tl.load(order + index, mask=mask, other=0)


@triton.jit
def _multiply(a, b, sums, PRECISION: tl.constexpr):
    # The interpreter's product of bfloat16 is garbage.
    if INTERPRETED:
        return tl.dot(widen(a), widen(b), sums, input_precision=PRECISION, out_dtype=sums.dtype)
    else:
        return tl.dot(a, b, sums, input_precision=PRECISION, out_dtype=sums.dtype)


@triton.jit
def _activated(x, ACTIVATION: tl.constexpr):
    """What a layer puts out, where its sums x were kept."""
    if ACTIVATION == "identity":
        return x
    else:
        return activate(widen(x), ACTIVATION).to(x.dtype)


@triton.jit
def _load_delta(grad, y, mask, ACTIVATION: tl.constexpr):
    """The gradient before the activation, from the one after it and the output."""
    g = tl.load(grad, mask=mask, other=0.0)
    if ACTIVATION == "identity":
        return g
    else:
        return through_activation(widen(g), widen(tl.load(y, mask=mask, other=0.0)), ACTIVATION).to(g.dtype)


@triton.jit
def add_layer(
    sums,
    x_rows,
    weight,
    in_order,
    prefix,
    first,
    out_stored,
    inputs,
    outputs,
    X_ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    K: tl.constexpr,
):
    """sums (rows, outputs from `first` on) + x (W * M)^T, of the rows at x_rows, through an activation where they are sums."""
    OUTPUTS: tl.constexpr = sums.shape[1]
    out = first + tl.arange(0, OUTPUTS)
    seen = tl.load(prefix + out, mask=out < outputs, other=0)
    seen_by_all = tl.load(prefix + first) // K * K
    seen_by_any = tl.load(prefix + tl.minimum(first + OUTPUTS, outputs) - 1)
    # Outputs past the end repeat the last one and are not stored: nothing to mask in the loop.
    w_rows = weight + tl.minimum(out_stored, outputs - 1).to(tl.int64)[None, :] * inputs
    for k in range(0, seen_by_all, K):
        j = k + tl.arange(0, K)
        j_stored = stored(in_order, j, j < inputs)
        u = _activated(tl.load(x_rows + j_stored[None, :]), X_ACTIVATION)
        sums = _multiply(u, tl.load(w_rows + j_stored[:, None]), sums, PRECISION)
    for k in range(seen_by_all, seen_by_any, K):
        j = k + tl.arange(0, K)
        j_stored = stored(in_order, j, j < inputs)
        u = _activated(tl.load(x_rows + j_stored[None, :], mask=(j < inputs)[None, :], other=0.0), X_ACTIVATION)
        w = tl.load(w_rows + j_stored[:, None], mask=(j < inputs)[:, None], other=0.0)
        sums = _multiply(u, tl.where(j[:, None] < seen[None, :], w, 0.0), sums, PRECISION)
    return sums


@triton.jit
def add_input_gradient(
    sums,
    grad_rows,
    y_rows,
    weight,
    out_order,
    suffix,
    first,
    j_stored,
    inputs,
    outputs,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    K: tl.constexpr,
):
    """sums (rows, inputs from `first` on) + g (W * M), of the gradients at grad_rows, before the activation."""
    INPUTS: tl.constexpr = sums.shape[1]
    j = first + tl.arange(0, INPUTS)
    seen_from = tl.load(suffix + j, mask=j < inputs, other=0)
    any_seen_from = tl.load(suffix + first) // K * K
    all_seen_from = tl.cdiv(tl.load(suffix + tl.minimum(first + INPUTS, inputs) - 1), K) * K
    w_columns = weight + j_stored[None, :]
    for k in range(any_seen_from, tl.minimum(all_seen_from, outputs), K):
        o = k + tl.arange(0, K)
        o_stored = stored(out_order, o, o < outputs)
        g = _load_delta(grad_rows + o_stored[None, :], y_rows + o_stored[None, :], (o < outputs)[None, :], ACTIVATION)
        w_mask = (o < outputs)[:, None] & (j < inputs)[None, :]
        w = tl.load(w_columns + o_stored.to(tl.int64)[:, None] * inputs, mask=w_mask, other=0.0)
        sums = _multiply(g, tl.where(o[:, None] >= seen_from[None, :], w, 0.0), sums, PRECISION)
    for k in range(all_seen_from, outputs, K):
        o = k + tl.arange(0, K)
        o_stored = stored(out_order, o, o < outputs)
        g = _load_delta(grad_rows + o_stored[None, :], y_rows + o_stored[None, :], (o < outputs)[None, :], ACTIVATION)
        w_mask = (o < outputs)[:, None] & (j < inputs)[None, :]
        w = tl.load(w_columns + o_stored.to(tl.int64)[:, None] * inputs, mask=w_mask, other=0.0)
        sums = _multiply(g, w, sums, PRECISION)
    return sums


@triton.jit
def store_weight_gradient(
    gw,
    grad,
    y,
    x,
    in_order,
    out_order,
    prefix,
    first_out,
    first_in,
    start,
    stop,
    inputs,
    outputs,
    grad_row,
    y_row,
    x_row,
    ACTIVATION: tl.constexpr,
    X_ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    K: tl.constexpr,
):
    """Writes the tile of g^T x, over rows start to stop, that begins at first_out and first_in; 0 outside the mask."""
    out = first_out + tl.arange(0, OUTPUTS)
    j = first_in + tl.arange(0, INPUTS)
    out_stored = stored(out_order, out, out < outputs)
    j_stored = stored(in_order, j, j < inputs)
    seen = tl.load(prefix + out, mask=out < outputs, other=0)
    seen_by_any = tl.load(prefix + tl.minimum(first_out + OUTPUTS, outputs) - 1)
    # A tile outside the staircase reads nothing.
    stop = tl.where(first_in < seen_by_any, stop, start)
    sums = tl.zeros((OUTPUTS, INPUTS), SUM)
    for k in range(start, stop, K):
        row = k + tl.arange(0, K)
        kept = row.to(tl.int64)
        g = _load_delta(
            grad + kept[None, :] * grad_row + out_stored[:, None],
            y + kept[None, :] * y_row + out_stored[:, None],
            (row < stop)[None, :] & (out < outputs)[:, None],
            ACTIVATION,
        )
        u = tl.load(
            x + kept[:, None] * x_row + j_stored[None, :], mask=(row < stop)[:, None] & (j < inputs)[None, :], other=0.0
        )
        sums = _multiply(g, _activated(u, X_ACTIVATION), sums, PRECISION)
    value = tl.where(j[None, :] < seen[:, None], sums, 0.0).to(gw.dtype.element_ty)
    places = gw + out_stored.to(tl.int64)[:, None] * inputs + j_stored[None, :]
    tl.store(places, value, mask=(out < outputs)[:, None] & (j < inputs)[None, :])


@triton.jit
def sum_rows(
    grad,
    y,
    column,
    start,
    stop,
    columns,
    grad_row,
    y_row,
    ACTIVATION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The sums over rows start to stop of the gradient before the activation, ROWS of them side by side."""
    sums = tl.zeros((ROWS, column.shape[0]), SUM)
    for first in range(start, stop, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row < stop)[:, None] & (column < columns)[None, :]
        kept = row.to(tl.int64)[:, None]
        sums += widen(
            _load_delta(grad + kept * grad_row + column[None, :], y + kept * y_row + column[None, :], mask, ACTIVATION)
        )
    return tl.sum(sums, 0)
