"""Kernels that go over rows once: the shape of their tiles, their launch, and their loads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._launch import device_of, on_device
from ._math import widen

# Tiles that one program walks at most; a row of no more is short.
_STEPS = 8


@dataclass(frozen=True)
class RowTile:
    """What one program holds at a time: `rows` x `columns` elements."""

    rows: int
    columns: int
    num_warps: int


def tile_limits(x: Tensor) -> tuple[int, int]:
    """How many elements of x a program holds at a time, and its warps: float64 takes two registers each, and more to map."""
    return (2048, 4) if x.element_size() <= 4 else (1024, 8)


def row_tile(x: Tensor) -> RowTile:
    """The tile for x of shape (B, ...): as many elements as the limit, but so few rows that every multiprocessor gets two."""
    columns = min(triton.next_power_of_2(math.prod(x.shape[1:])), 1024)
    elements, warps = tile_limits(x)
    rows = min(elements // columns, triton.next_power_of_2(triton.cdiv(len(x), 2 * device_of(x).processors)))
    return RowTile(rows, columns, num_warps=warps if rows * columns >= 1024 else 1)


def row_parts(x: Tensor, tile: RowTile) -> tuple[int, int]:
    """How many elements of a row of x (B, ...) one program takes, and how many programs that makes.

    A short row is not cut; of a long one every multiprocessor gets eight programs or more, for an even load.
    """
    length = math.prod(x.shape[1:])
    steps = triton.cdiv(length, tile.columns)
    if steps > _STEPS:
        steps = min(_STEPS, max(1, steps * triton.cdiv(len(x), tile.rows) // (8 * device_of(x).processors)))
    share = steps * tile.columns
    return share, triton.cdiv(length, share)


def launch_rows(kernel: Any, x: Tensor, tile: RowTile, *arguments: Any, parts: int = 1, **options: Any) -> None:
    """Launches `parts` programs for every tile of rows of x (B, ...)."""
    with on_device(x):
        kernel[(triton.cdiv(len(x), tile.rows) * parts,)](
            *arguments, **options, ROWS=tile.rows, COLUMNS=tile.columns, num_warps=tile.num_warps
        )


def interleaved(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether b's elements follow a's one by one, as the two columns of a (B, D, 2) do: then one wide load fetches both."""
    if a is None or b is None:
        return False
    return a.stride(1) == 2 and a.stride() == b.stride() and b.data_ptr() == a.data_ptr() + a.element_size()


def strides(t: Tensor | None, axes: int = 2) -> tuple[int, ...]:
    """t's strides along its axes, zeros for None."""
    return (0,) * axes if t is None else t.stride()


@triton.jit
def load_row_values(pointer, row, stride, mask):
    """One value per row, widened; 0 outside the mask and for an absent tensor."""
    if pointer is None:
        return tl.zeros(row.shape, tl.float32)
    else:
        return widen(tl.load(pointer + row.to(tl.int64) * stride, mask=mask, other=0.0))


@triton.jit
def load_tile(pointer, row, column, row_stride, column_stride, mask):
    """A tile at rows x columns, widened; 0 outside the mask and for an absent tensor."""
    if pointer is None:
        return tl.zeros(mask.shape, tl.float32)
    else:
        # 64-bit: any stride may be large.
        offsets = row.to(tl.int64)[:, None] * row_stride + column.to(tl.int64)[None, :] * column_stride
        return widen(tl.load(pointer + offsets, mask=mask, other=0.0))


@triton.jit
def load_pair(
    first,
    second,
    row,
    start,
    rows,
    columns,
    first_row,
    first_column,
    second_row,
    second_column,
    INTERLEAVED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The same tile of two tensors, in one load where they are interleaved."""
    if INTERLEAVED:
        column = 2 * start + tl.arange(0, 2 * COLUMNS)
        mask = (row < rows)[:, None] & (column < 2 * columns)[None, :]
        both = tl.load(first + row.to(tl.int64)[:, None] * first_row + column[None, :], mask=mask, other=0.0)
        a, b = tl.split(tl.reshape(both, (row.shape[0], COLUMNS, 2)))
        return widen(a), widen(b)
    else:
        column = start + tl.arange(0, COLUMNS)
        mask = (row < rows)[:, None] & (column < columns)[None, :]
        a = load_tile(first, row, column, first_row, first_column, mask)
        b = load_tile(second, row, column, second_row, second_column, mask)
        return a, b


@triton.jit
def store_tile(pointer, row, column, row_stride, value, mask):
    """Stores a tile of a row-major tensor; nothing where there is none."""
    if pointer is not None:
        offsets = row.to(tl.int64)[:, None] * row_stride + column[None, :]
        tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=mask)
