"""The gradients of all parameters of a network in one launch, and a second one where the batch is cut into slices."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, device_of, on_device
from ._network import Network, block
from ._staircase import store_weight_gradient, sum_rows
from .masked_linear import Tile, arithmetic, options, slices_of

# The tile of a weight's gradient, and the step over rows.
TILES = {
    "half": Tile(64, 64, 64, 4, 3),
    "tf32": Tile(32, 64, 32, 4, 3),
    "ieee": Tile(64, 64, 16, 4, 3),
    "double": Tile(32, 32, 16, 4, 3),
}
# Rows that one slice of the parameters' gradients sums at least.
_SLICE_ROWS = 256
# A bias's gradient: columns of a program, rows side by side.
_BIAS_COLUMNS, _BIAS_ROWS = 64, 16
_SUM_BLOCK = 1024


@triton.jit
def _weight_tile(
    program,
    h,
    h_row,
    delta,
    gw,
    in_order,
    out_order,
    prefix,
    start,
    stop,
    inputs,
    outputs,
    H_ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    K: tl.constexpr,
):
    """The tile of a weight's gradient that `program` is, if it is one; then the program's number among all others."""
    across = tl.cdiv(inputs, INPUTS)
    tiles = tl.cdiv(outputs, OUTPUTS) * across
    if (program >= 0) & (program < tiles):
        store_weight_gradient(
            gw + tl.program_id(1).to(tl.int64) * outputs * inputs,
            delta,
            delta,
            h,
            in_order,
            out_order,
            prefix,
            program // across * OUTPUTS,
            program % across * INPUTS,
            start,
            stop,
            inputs,
            outputs,
            outputs,
            outputs,
            h_row,
            "identity",
            H_ACTIVATION,
            PRECISION,
            SUM,
            OUTPUTS,
            INPUTS,
            K,
        )
    return program - tiles


@triton.jit
def _bias_tile(program, delta, gb, start, stop, outputs, SUM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The same for a bias."""
    tiles = tl.cdiv(outputs, COLUMNS)
    if (program >= 0) & (program < tiles):
        column = program * COLUMNS + tl.arange(0, COLUMNS)
        sums = sum_rows(delta, delta, column, start, stop, outputs, outputs, outputs, "identity", SUM, ROWS)
        places = gb + tl.program_id(1).to(tl.int64) * outputs + column
        tl.store(places, sums.to(gb.dtype.element_ty), mask=column < outputs)
    return program - tiles


@triton.jit
def _parameter_kernel(
    x,
    saved,
    deltas,
    gweights,
    gbiases,
    in_orders,
    out_orders,
    prefixes,
    widths,
    batch,
    x_row,
    slice_rows,
    LOADED: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    K: tl.constexpr,
    BIAS_ROWS: tl.constexpr,
    BIAS_COLUMNS: tl.constexpr,
):
    """One tile of one parameter's gradient, over one slice of the rows."""
    LAST: tl.constexpr = len(LOADED) - 1
    program = tl.program_id(0)
    start = tl.program_id(1) * slice_rows
    stop = tl.minimum(start + slice_rows, batch)
    for i in tl.static_range(LAST + 1):
        if gweights[i] is not None:
            program = _weight_tile(
                program,
                x if i == 0 else block(saved, batch, widths, i - 1),
                x_row if i == 0 else widths[i],
                block(deltas, batch, widths, i),
                gweights[i],
                in_orders[i],
                out_orders[i],
                prefixes[i],
                start,
                stop,
                widths[i],
                widths[i + 1],
                "identity" if i == 0 else LOADED[i - 1],
                PRECISION,
                SUM,
                OUTPUTS,
                INPUTS,
                K,
            )
        if gbiases[i] is not None:
            program = _bias_tile(
                program, block(deltas, batch, widths, i), gbiases[i], start, stop, widths[i + 1], SUM, BIAS_ROWS, BIAS_COLUMNS
            )
    # The direct connections are a layer from x to the last layer's sums.
    if len(gweights) > LAST + 1 and gweights[LAST + 1] is not None:
        _weight_tile(
            program,
            x,
            x_row,
            block(deltas, batch, widths, LAST),
            gweights[LAST + 1],
            in_orders[0],
            out_orders[LAST],
            prefixes[LAST + 1],
            start,
            stop,
            widths[0],
            widths[LAST + 1],
            "identity",
            PRECISION,
            SUM,
            OUTPUTS,
            INPUTS,
            K,
        )


@triton.jit
def _sum_slices_kernel(parts, gradients, sizes, slices, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    for i in tl.static_range(len(parts)):
        if (program >= 0) & (program * BLOCK < sizes[i]):
            index = program * BLOCK + tl.arange(0, BLOCK)
            sums = tl.load(parts[i] + index, mask=index < sizes[i], other=0.0)
            for part in range(1, slices):
                sums += tl.load(parts[i] + part * sizes[i] + index, mask=index < sizes[i], other=0.0)
            tl.store(gradients[i] + index, sums.to(gradients[i].dtype.element_ty), mask=index < sizes[i])
        program -= tl.cdiv(sizes[i], BLOCK)


def parameter_gradients(x: Tensor, saved: Tensor, deltas: Tensor, network: Network, gparams: Sequence[Tensor]) -> None:
    """Writes the parameters' gradients, but those of no elements."""
    batch, kind, device = len(x), arithmetic(x.dtype), device_of(x)
    tile, count = TILES[kind], len(network.biases)
    wanted = [g for g in gparams if g.numel()]
    programs = sum(
        triton.cdiv(g.shape[0], tile.m) * triton.cdiv(g.shape[1], tile.n)
        if g.dim() == 2
        else triton.cdiv(len(g), _BIAS_COLUMNS)
        for g in wanted
    )
    slice_rows, slices = slices_of(batch, triton.cdiv(4 * device.processors, programs), tile.k, _SLICE_ROWS)
    sizes = tuple(g.numel() for g in wanted)
    parts = wanted
    if slices > 1:
        parts = list(x.new_empty(slices * sum(sizes), dtype=accumulator(x.dtype)).split([slices * n for n in sizes]))
    waiting = iter(parts)
    targets = [next(waiting) if g.numel() else None for g in gparams]
    with on_device(x):
        _parameter_kernel[(programs, slices)](
            x,
            saved,
            deltas,
            (*targets[0 : 2 * count : 2], *targets[2 * count :]),
            tuple(targets[1 : 2 * count : 2]),
            network.in_orders,
            network.out_orders,
            network.prefixes,
            network.widths,
            batch,
            x.stride(0),
            slice_rows,
            LOADED=network.loaded,
            OUTPUTS=tile.m,
            INPUTS=tile.n,
            BIAS_ROWS=_BIAS_ROWS,
            BIAS_COLUMNS=_BIAS_COLUMNS,
            **options(kind, tile),
        )
        if slices > 1:
            _sum_slices_kernel[(sum(triton.cdiv(n, _SUM_BLOCK) for n in sizes),)](
                tuple(parts), tuple(wanted), sizes, slices, BLOCK=_SUM_BLOCK, num_warps=4
            )
