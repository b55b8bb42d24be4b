"""The masked linear layer and its gradients: matrix products that stop at the staircase of sorted degrees.

In sorted coordinates output o sees the first prefix[o] inputs, and prefix never falls; input j is seen by the outputs from
suffix[j] on. A tile walks what any of its units sees, and masks weights in registers only where not all of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._activations import activate
from ._launch import Device, accumulator, allows_tf32, device_of, on_device
from ._math import widen
from ._staircase import add_input_gradient, add_layer, store_weight_gradient, stored, sum_rows

# in_order, out_order (None: in order as they stand), prefix and suffix, as in fastgen.ops.LinearPlan.
Plan = Sequence[Tensor | None]


@dataclass(frozen=True)
class Tile:
    """The part of a product one program computes, m x n, walking the summed axis k at a time."""

    m: int
    n: int
    k: int
    num_warps: int
    num_stages: int


# From large to small, by what multiplies: tensor cores on half types or on tf32, float32 or float64 arithmetic.
TILES = {
    "half": (Tile(128, 256, 64, 8, 4), Tile(128, 128, 64, 8, 3), Tile(64, 64, 64, 4, 3), Tile(32, 32, 64, 4, 3)),
    "tf32": (Tile(128, 128, 32, 8, 3), Tile(64, 64, 32, 4, 3), Tile(32, 32, 32, 4, 3)),
    "ieee": (Tile(128, 64, 16, 8, 3), Tile(64, 64, 16, 4, 3), Tile(32, 32, 16, 4, 3)),
    "double": (Tile(64, 64, 16, 8, 3), Tile(32, 32, 16, 4, 3)),
}
# Rows of the batch that one slice of a weight gradient sums at least: fewer are not worth the slices' own sum.
_SLICE_ROWS = 1024


def arithmetic(dtype: torch.dtype) -> str:
    """What multiplies matrices of this dtype: a key of `TILES`."""
    if dtype in (torch.bfloat16, torch.float16):
        return "half"
    if dtype == torch.float64:
        return "double"
    return "tf32" if allows_tf32() else "ieee"


def tile_for(kind: str, m: int, n: int, reads: int, device: Device) -> Tile:
    """The largest tile that gives every multiprocessor one; the smallest where none does.

    `reads` is the number of (m, k) tiles a step loads beside its (k, n) tile: with an activation's derivative two.
    """
    size = 2 if kind == "half" else 8 if kind == "double" else 4
    tiles = [t for t in TILES[kind] if t.num_stages * t.k * (reads * t.m + t.n) * size <= device.shared_memory]
    return next((t for t in tiles if triton.cdiv(m, t.m) * triton.cdiv(n, t.n) >= device.processors), tiles[-1])


@triton.jit
def _place(m_tiles, n_tiles):
    """The tile (m, n) of this program: 8 values of n side by side, so that neighbours share what they read in L2."""
    program = tl.program_id(0)
    first = program // (8 * m_tiles) * 8
    width = tl.minimum(n_tiles - first, 8)
    within = program - first * m_tiles
    return within // width, first + within % width


@triton.jit
def _forward_kernel(
    x,
    weight,
    bias,
    y,
    in_order,
    out_order,
    prefix,
    batch,
    inputs,
    outputs,
    x_row,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    K: tl.constexpr,
):
    out_tiles = tl.cdiv(outputs, OUTPUTS)
    row_tile, out_tile = _place(tl.cdiv(batch, ROWS), out_tiles)
    # The last outputs see most: the longest tiles come first, and the short ones fill the gaps at the end.
    first = (out_tiles - 1 - out_tile) * OUTPUTS
    row = row_tile * ROWS + tl.arange(0, ROWS)
    out = first + tl.arange(0, OUTPUTS)
    out_stored = stored(out_order, out, out < outputs)
    # Rows past the end repeat the last one and are not stored: nothing to mask in the loop.
    x_rows = x + tl.minimum(row, batch - 1).to(tl.int64)[:, None] * x_row
    sums = add_layer(
        tl.zeros((ROWS, OUTPUTS), SUM),
        x_rows,
        weight,
        in_order,
        prefix,
        first,
        out_stored,
        inputs,
        outputs,
        "identity",
        PRECISION,
        K,
    )

    if bias is not None:
        sums += widen(tl.load(bias + out_stored, mask=out < outputs, other=0.0))[None, :]
    value = activate(sums, ACTIVATION).to(y.dtype.element_ty)
    places = y + row.to(tl.int64)[:, None] * outputs + out_stored[None, :]
    tl.store(places, value, mask=(row < batch)[:, None] & (out < outputs)[None, :])


@triton.jit
def _grad_input_kernel(
    grad,
    y,
    weight,
    gx,
    in_order,
    out_order,
    suffix,
    batch,
    inputs,
    outputs,
    grad_row,
    y_row,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    K: tl.constexpr,
):
    # The first inputs are seen by most: here the longest tiles come first as they stand.
    row_tile, in_tile = _place(tl.cdiv(batch, ROWS), tl.cdiv(inputs, INPUTS))
    first = in_tile * INPUTS
    row = row_tile * ROWS + tl.arange(0, ROWS)
    j = first + tl.arange(0, INPUTS)
    j_stored = stored(in_order, j, j < inputs)
    kept = tl.minimum(row, batch - 1).to(tl.int64)[:, None]
    sums = add_input_gradient(
        tl.zeros((ROWS, INPUTS), SUM),
        grad + kept * grad_row,
        y + kept * y_row,
        weight,
        out_order,
        suffix,
        first,
        j_stored,
        inputs,
        outputs,
        ACTIVATION,
        PRECISION,
        K,
    )

    places = gx + row.to(tl.int64)[:, None] * inputs + j_stored[None, :]
    tl.store(places, sums.to(gx.dtype.element_ty), mask=(row < batch)[:, None] & (j < inputs)[None, :])


@triton.jit
def _grad_weight_kernel(
    grad,
    y,
    x,
    gw,
    in_order,
    out_order,
    prefix,
    batch,
    inputs,
    outputs,
    grad_row,
    y_row,
    x_row,
    slice_rows,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    K: tl.constexpr,
):
    out_tile, in_tile = _place(tl.cdiv(outputs, OUTPUTS), tl.cdiv(inputs, INPUTS))
    start = tl.program_id(1) * slice_rows
    store_weight_gradient(
        gw + tl.program_id(1).to(tl.int64) * outputs * inputs,
        grad,
        y,
        x,
        in_order,
        out_order,
        prefix,
        out_tile * OUTPUTS,
        in_tile * INPUTS,
        start,
        tl.minimum(start + slice_rows, batch),
        inputs,
        outputs,
        grad_row,
        y_row,
        x_row,
        ACTIVATION,
        "identity",
        PRECISION,
        SUM,
        OUTPUTS,
        INPUTS,
        K,
    )


@triton.jit
def _sum_rows_kernel(
    grad,
    y,
    total,
    batch,
    columns,
    grad_row,
    y_row,
    slice_rows,
    ACTIVATION: tl.constexpr,
    SUM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(1) * slice_rows
    stop = tl.minimum(start + slice_rows, batch)
    sums = sum_rows(grad, y, column, start, stop, columns, grad_row, y_row, ACTIVATION, SUM, ROWS)
    places = total + tl.program_id(1).to(tl.int64) * columns + column
    tl.store(places, sums.to(total.dtype.element_ty), mask=column < columns)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, activation: str, out: Tensor | None = None) -> Tensor:
    """act(x (W * M)^T + b), (B, O), of x (B, I) of last stride 1 and a contiguous weight (O, I); written to `out` if given."""
    (batch, inputs), outputs = x.shape, weight.shape[0]
    y = x.new_empty((batch, outputs)) if out is None else out
    if batch == 0:
        return y
    in_order, out_order, prefix, _ = plan
    kind = arithmetic(x.dtype)
    tile = tile_for(kind, batch, outputs, 1, device_of(x))
    with on_device(x):
        _forward_kernel[(triton.cdiv(batch, tile.m) * triton.cdiv(outputs, tile.n),)](
            x,
            weight,
            bias,
            y,
            in_order,
            out_order,
            prefix,
            batch,
            inputs,
            outputs,
            x.stride(0),
            ACTIVATION=activation,
            ROWS=tile.m,
            OUTPUTS=tile.n,
            **options(kind, tile),
        )
    return y


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, y: Tensor, plan: Plan, activation: str, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, weight and bias, those that are needed, from grad (B, O) whose last stride is 1 and the output y."""
    if x.shape[0] == 0:
        gx, gw, gb = (t.new_zeros(t.shape) if n else None for t, n in zip((x, weight, weight[:, 0]), needs, strict=True))
        return gx, gw, gb
    with on_device(x):
        gx = _grad_input(grad, y, weight, plan, activation) if needs[0] else None
        gw = _grad_weight(grad, y, x, weight, plan, activation) if needs[1] else None
        gb = _sum_rows(grad, y, activation) if needs[2] else None
    return gx, gw, gb


def _grad_input(grad: Tensor, y: Tensor, weight: Tensor, plan: Plan, activation: str) -> Tensor:
    batch, (outputs, inputs) = grad.shape[0], weight.shape
    in_order, out_order, _, suffix = plan
    kind = arithmetic(weight.dtype)
    tile = tile_for(kind, batch, inputs, _reads(activation), device_of(grad))
    gx = grad.new_empty((batch, inputs))
    _grad_input_kernel[(triton.cdiv(batch, tile.m) * triton.cdiv(inputs, tile.n),)](
        grad,
        y,
        weight,
        gx,
        in_order,
        out_order,
        suffix,
        batch,
        inputs,
        outputs,
        grad.stride(0),
        y.stride(0),
        ACTIVATION=activation,
        ROWS=tile.m,
        INPUTS=tile.n,
        **options(kind, tile),
    )
    return gx


def _grad_weight(grad: Tensor, y: Tensor, x: Tensor, weight: Tensor, plan: Plan, activation: str) -> Tensor:
    batch, (outputs, inputs) = grad.shape[0], weight.shape
    in_order, out_order, prefix, _ = plan
    kind = arithmetic(weight.dtype)
    device = device_of(grad)
    tile = tile_for(kind, outputs, inputs, _reads(activation), device)
    tiles = triton.cdiv(outputs, tile.m) * triton.cdiv(inputs, tile.n)
    slice_rows, slices = slices_of(batch, device.processors // tiles, tile.k, _SLICE_ROWS)
    gw = torch.empty_like(weight) if slices == 1 else _partial(weight, (slices, outputs * inputs))
    _grad_weight_kernel[(tiles, slices)](
        grad,
        y,
        x,
        gw,
        in_order,
        out_order,
        prefix,
        batch,
        inputs,
        outputs,
        grad.stride(0),
        y.stride(0),
        x.stride(0),
        slice_rows,
        ACTIVATION=activation,
        OUTPUTS=tile.m,
        INPUTS=tile.n,
        **options(kind, tile),
    )
    return gw if slices == 1 else _sum_rows(gw, gw, "identity", weight.dtype).view(outputs, inputs)


def _sum_rows(grad: Tensor, y: Tensor, activation: str, dtype: torch.dtype | None = None) -> Tensor:
    """The sum over rows of the gradient before the activation, in a fixed order: slices first where rows are many."""
    batch, columns = grad.shape
    rows, width = 16, 128
    column_tiles = triton.cdiv(columns, width)
    slice_rows, slices = slices_of(batch, 2 * device_of(grad).processors // column_tiles, rows, _SLICE_ROWS)
    total = grad.new_empty(columns, dtype=dtype) if slices == 1 else _partial(grad, (slices, columns))
    _sum_rows_kernel[(column_tiles, slices)](
        grad,
        y,
        total,
        batch,
        columns,
        grad.stride(0),
        y.stride(0),
        slice_rows,
        ACTIVATION=activation,
        SUM=_sum_dtype(grad.dtype),
        ROWS=rows,
        COLUMNS=width,
        num_warps=4,
    )
    return total if slices == 1 else _sum_rows(total, total, "identity", grad.dtype if dtype is None else dtype)


def slices_of(batch: int, wanted: int, step: int, least: int) -> tuple[int, int]:
    """The rows of a slice, a multiple of `step`, and how many: `wanted` unless that makes them shorter than `least`."""
    slices = max(1, min(wanted, batch // least))
    slice_rows = triton.cdiv(triton.cdiv(batch, slices), step) * step
    return slice_rows, triton.cdiv(batch, slice_rows)


def _partial(t: Tensor, shape: tuple[int, int]) -> Tensor:
    return t.new_empty(shape, dtype=accumulator(t.dtype))


def _reads(activation: str) -> int:
    return 1 if activation == "identity" else 2


def _sum_dtype(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


def options(kind: str, tile: Tile) -> dict[str, Any]:
    """What a kernel of products is compiled for."""
    return {
        "PRECISION": "tf32" if kind == "tf32" else "ieee",
        "SUM": tl.float64 if kind == "double" else tl.float32,
        "K": tile.k,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }
