"""A tile of rows through all layers of a small network and the affine map, and the gradients of all sums back through them.

What a layer puts out waits in memory for the next one, no farther off than the second-level cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._activations import activate, through_activation, through_activation_of
from ._affine import affine, affine_gradients
from ._launch import Device, device_of, on_device
from ._math import HALF_LOG_2_PI, widen
from ._network import block
from ._rows import load_row_values, load_tile
from ._scale_map import log_scale_of, through_scale_map
from ._staircase import add_input_gradient, add_layer, stored
from .masked_linear import Tile, arithmetic, options

# Rows, outputs and the step of a layer's product. Many outputs: every tile of them fills its pipeline anew.
TILES = {
    "half": Tile(64, 128, 64, 8, 3),
    "tf32": Tile(32, 128, 32, 8, 3),
    "ieee": Tile(32, 128, 16, 8, 4),
    "double": Tile(32, 32, 16, 8, 3),
}


@triton.jit
def _layer(
    x_rows,
    h_rows,
    context_rows,
    target,
    source,
    kept,
    inside,
    weights,
    biases,
    in_orders,
    out_orders,
    prefixes,
    widths,
    LAYER: tl.constexpr,
    LAST: tl.constexpr,
    X_ACTIVATION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    K: tl.constexpr,
):
    """Writes what a layer puts out for this program's rows: act(h W^T + b + what is added)."""
    inputs, outputs = widths[LAYER], widths[LAYER + 1]
    for first in range(0, outputs, OUTPUTS):
        out = first + tl.arange(0, OUTPUTS)
        mask = inside[:, None] & (out < outputs)[None, :]
        at = stored(out_orders[LAYER], out, out < outputs)
        sums = tl.zeros((kept.shape[0], OUTPUTS), SUM)
        sums = add_layer(
            sums,
            h_rows,
            weights[LAYER],
            in_orders[LAYER],
            prefixes[LAYER],
            first,
            at,
            inputs,
            outputs,
            X_ACTIVATION,
            PRECISION,
            K,
        )
        if LAYER == LAST and len(weights) > LAST + 1:
            sums = add_layer(
                sums,
                x_rows,
                weights[LAST + 1],
                in_orders[0],
                prefixes[LAST + 1],
                first,
                at,
                widths[0],
                outputs,
                "identity",
                PRECISION,
                K,
            )
        if biases[LAYER] is not None:
            sums += widen(tl.load(biases[LAYER] + at, mask=out < outputs, other=0.0))[None, :]
        if LAYER == 0 and context_rows is not None:
            sums += widen(tl.load(context_rows + at[None, :], mask=mask, other=0.0))
        places = kept[:, None] * outputs + at[None, :]
        if source is not None:
            sums += widen(tl.load(source + places, mask=mask, other=0.0))
        tl.store(target + places, activate(sums, ACTIVATION).to(target.dtype.element_ty), mask=mask)


@triton.jit
def forward_kernel(
    x,
    saved,
    widths,
    batch,
    x_row,
    context_terms,
    log_det,
    z,
    total,
    weights,
    biases,
    in_orders,
    out_orders,
    prefixes,
    context_row,
    log_det_stride,
    STORED: tl.constexpr,
    LOADED: tl.constexpr,
    RESIDUALS: tl.constexpr,
    DIVIDE: tl.constexpr,
    LOG_PROB: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    LAST: tl.constexpr = len(STORED) - 1
    features = widths[0]
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < batch
    # Rows past the end repeat the last one and are not stored.
    kept = tl.minimum(row, batch - 1).to(tl.int64)
    x_rows = x + kept[:, None] * x_row
    context_rows = None if context_terms is None else context_terms + kept[:, None] * context_row
    for i in tl.static_range(LAST + 1):
        _layer(
            x_rows,
            x_rows if i == 0 else block(saved, batch, widths, i - 1) + kept[:, None] * widths[i],
            context_rows,
            block(saved, batch, widths, i),
            None if RESIDUALS[i] < 0 else block(saved, batch, widths, RESIDUALS[i]),
            kept,
            inside,
            weights,
            biases,
            in_orders,
            out_orders,
            prefixes,
            widths,
            i,
            LAST,
            "identity" if i == 0 else LOADED[i - 1],
            STORED[i],
            PRECISION,
            SUM,
            OUTPUTS,
            K,
        )
        # What some threads have written others read.
        tl.debug_barrier()

    column = tl.arange(0, COLUMNS)
    mask = inside[:, None] & (column < features)[None, :]
    y = block(saved, batch, widths, LAST)
    u = load_tile(x, row, column, x_row, 1, mask)
    t = load_tile(y, kept, 2 * column, 2 * features, 1, mask)
    s = log_scale_of(load_tile(y + 1, kept, 2 * column, 2 * features, 1, mask), KIND, A, B)
    value = affine(u, t, s, not DIVIDE)
    change = s if DIVIDE else -s
    if LOG_PROB:
        change -= 0.5 * value * value + HALF_LOG_2_PI
    else:
        tl.store(z + row.to(tl.int64)[:, None] * features + column[None, :], value.to(z.dtype.element_ty), mask=mask)
    before = load_row_values(log_det, row, log_det_stride, inside)
    tl.store(total + row, (before + tl.sum(tl.where(mask, change, 0.0), 1)).to(total.dtype.element_ty), mask=inside)


@triton.jit
def _layer_below(
    saved,
    deltas,
    weights,
    in_orders,
    out_orders,
    suffixes,
    widths,
    batch,
    kept,
    inside,
    LAYER: tl.constexpr,
    RESIDUALS: tl.constexpr,
    STORED: tl.constexpr,
    LOADED: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    K: tl.constexpr,
):
    """Writes the gradients of the sums of the layer below, for this program's rows, from those of all layers above."""
    inputs, outputs = widths[LAYER], widths[LAYER + 1]
    g_rows = block(deltas, batch, widths, LAYER) + kept[:, None] * outputs
    for first in range(0, inputs, OUTPUTS):
        j = first + tl.arange(0, OUTPUTS)
        at = stored(in_orders[LAYER], j, j < inputs)
        mask = inside[:, None] & (j < inputs)[None, :]
        sums = add_input_gradient(
            tl.zeros((kept.shape[0], OUTPUTS), SUM),
            g_rows,
            g_rows,
            weights[LAYER],
            out_orders[LAYER],
            suffixes[LAYER],
            first,
            at,
            inputs,
            outputs,
            "identity",
            PRECISION,
            K,
        )
        h = load_tile(block(saved, batch, widths, LAYER - 1), kept, at, inputs, 1, mask)
        sums = through_activation(sums, h, STORED) if LOADED == "identity" else through_activation_of(sums, h, LOADED)
        for above in tl.static_range(LAYER, len(RESIDUALS)):
            if RESIDUALS[above] == LAYER - 1:
                sums += load_tile(block(deltas, batch, widths, above), kept, at, inputs, 1, mask)
        places = block(deltas, batch, widths, LAYER - 1) + kept[:, None] * inputs + at[None, :]
        tl.store(places, sums.to(deltas.dtype.element_ty), mask=mask)


@triton.jit
def delta_kernel(
    x,
    deltas,
    widths,
    batch,
    x_row,
    grad_z,
    grad_total,
    gx,
    saved,
    weights,
    in_orders,
    out_orders,
    suffixes,
    grad_row,
    grad_column,
    grad_total_stride,
    STORED: tl.constexpr,
    LOADED: tl.constexpr,
    RESIDUALS: tl.constexpr,
    LOWEST: tl.constexpr,
    DIVIDE: tl.constexpr,
    LOG_PROB: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    LAST: tl.constexpr = len(STORED) - 1
    features = widths[0]
    y = block(saved, batch, widths, LAST)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < batch
    kept = tl.minimum(row, batch - 1).to(tl.int64)
    gl = load_row_values(grad_total, row, grad_total_stride, inside)[:, None]

    # The map, in the order that the first layer reads features in, as the last step gives their gradient.
    j = tl.arange(0, COLUMNS)
    column = stored(in_orders[0], j, j < features)
    mask = inside[:, None] & (j < features)[None, :]
    u = load_tile(x, row, column, x_row, 1, mask)
    t = load_tile(y, kept, 2 * column, 2 * features, 1, mask)
    a = load_tile(y + 1, kept, 2 * column, 2 * features, 1, mask)
    s = log_scale_of(a, KIND, A, B)
    g = -gl * affine(u, t, s, not DIVIDE) if LOG_PROB else load_tile(grad_z, row, column, grad_row, grad_column, mask)
    gu, gt, gs = affine_gradients(g, gl, u, t, s, not DIVIDE)
    last_rows = block(deltas, batch, widths, LAST) + kept[:, None] * (2 * features)
    places = last_rows + 2 * column[None, :]
    tl.store(places, gt.to(deltas.dtype.element_ty), mask=mask)
    tl.store(places + 1, through_scale_map(gs, a, KIND, A, B).to(deltas.dtype.element_ty), mask=mask)
    tl.debug_barrier()

    for layer in tl.static_range(LAST, LOWEST, -1):
        _layer_below(
            saved,
            deltas,
            weights,
            in_orders,
            out_orders,
            suffixes,
            widths,
            batch,
            kept,
            inside,
            layer,
            RESIDUALS,
            STORED[layer - 1],
            LOADED[layer - 1],
            PRECISION,
            SUM,
            OUTPUTS,
            K,
        )
        tl.debug_barrier()

    if gx is not None:
        first_rows = deltas + kept[:, None] * widths[1]
        sums = add_input_gradient(
            tl.zeros((ROWS, COLUMNS), SUM),
            first_rows,
            first_rows,
            weights[0],
            out_orders[0],
            suffixes[0],
            0,
            column,
            features,
            widths[1],
            "identity",
            PRECISION,
            K,
        )
        if len(weights) > LAST + 1:
            sums = add_input_gradient(
                sums,
                last_rows,
                last_rows,
                weights[LAST + 1],
                out_orders[LAST],
                suffixes[LAST + 1],
                0,
                column,
                features,
                2 * features,
                "identity",
                PRECISION,
                K,
            )
        tl.store(gx + kept[:, None] * features + column[None, :], (sums + gu).to(gx.dtype.element_ty), mask=mask)


def launch_walk(kernel: Any, x: Tensor, room: Tensor, widths: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launches a program for every tile of x's rows. `room`: what layers put out or pass down, layer after layer."""
    kind = arithmetic(x.dtype)
    tile = _tile(kind, len(x), widths, device_of(x))
    with on_device(x):
        kernel[(triton.cdiv(len(x), tile.m),)](
            x,
            room,
            widths,
            len(x),
            x.stride(0),
            *arguments,
            **constants,
            ROWS=tile.m,
            OUTPUTS=tile.n,
            COLUMNS=max(16, triton.next_power_of_2(x.shape[1])),
            **options(kind, tile),
        )


def _tile(kind: str, batch: int, widths: Sequence[int], device: Device) -> Tile:
    """The tile of a layer's product: no wider than layers are, of fewer rows where most multiprocessors would have none."""
    tile = TILES[kind]
    rows, outputs = tile.m, min(tile.n, max(16, triton.next_power_of_2(max(widths))))
    while rows > 16 and 4 * triton.cdiv(batch, rows) < 3 * device.processors:
        rows //= 2
    step = tile.k * (rows + outputs) * (2 if kind == "half" else 8 if kind == "double" else 4)
    # Narrow layers are over in a few steps: nothing to run ahead for.
    warps, stages = (tile.num_warps, tile.num_stages) if outputs > 64 else (4, 2)
    return Tile(rows, outputs, tile.k, warps, min(stages, device.shared_memory // step))
