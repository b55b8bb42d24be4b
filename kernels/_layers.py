"""What kernels of K layers share: whole rows in registers through all layers, and parameters shared or of each row."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from ._launch import accumulator, device_of
from ._rows import load_tile, tile_limits


@dataclass(frozen=True)
class LayerTile:
    """What one program holds: `rows` whole rows of at most `columns` features, and how many programs there are."""

    rows: int
    columns: int
    num_warps: int
    programs: int


def layer_tile(z: Tensor, *, persistent: bool) -> LayerTile:
    """The tile for z of shape (B, D). `persistent`: whether programs go on to further rows, as sums over all rows want."""
    batch, features = z.shape
    columns = triton.next_power_of_2(features)
    elements, warps = tile_limits(z)
    rows = max(1, min(elements // columns, triton.next_power_of_2(triton.cdiv(batch, 2 * device_of(z).processors))))
    blocks = triton.cdiv(batch, rows)
    programs = min(blocks, 4 * device_of(z).processors) if persistent else blocks
    return LayerTile(rows, columns, 8 if columns > elements else warps if rows * columns >= 1024 else 1, programs)


def layer_strides(t: Tensor, shared: bool) -> tuple[int, int]:
    """The steps of rows and of layers, 0 and its own where all rows share the layers."""
    return (0, t.stride(0)) if shared else (t.stride(0), t.stride(1))


@triton.jit
def load_layer(pointer, row, column, row_stride, layer_stride, k, mask):
    """The k-th layer's vector for each row: a tile of the mask's shape, widened."""
    return load_tile(pointer + k.to(tl.int64) * layer_stride, row, column, row_stride, 1, mask)


@triton.jit
def over_rows(x, SHARED: tl.constexpr):
    """A tile, or its sum over rows, a tile of one row, where parameters are shared."""
    if SHARED:
        return tl.sum(x, 0)[None, :]
    else:
        return x


@triton.jit
def values_over_rows(x, SHARED: tl.constexpr):
    """One value per row, or their sum."""
    if SHARED:
        return tl.sum(x, 0)[None]
    else:
        return x


@triton.jit
def put(pointer, offsets, value, mask, add):
    """Stores values; adds them to what is there where `add`. Nothing where there is no tensor."""
    if pointer is not None:
        before = tl.load(pointer + offsets, mask=mask & add, other=0.0)
        tl.store(pointer + offsets, (before + value).to(pointer.dtype.element_ty), mask=mask)


def gradient_room(t: Tensor, needed: bool, shared: bool, programs: int) -> Tensor | None:
    """Where a parameter's gradient goes: for shared parameters one for each program, in the dtype of sums."""
    if not needed:
        return None
    if not shared:
        return t.new_empty(t.shape)
    return t.new_empty((programs, *t.shape), dtype=accumulator(t.dtype))


def gathered(room: Tensor | None, like: Tensor, shared: bool) -> Tensor:
    """The gradient from its room; a tensor of no elements where there is none."""
    if room is None:
        return like.new_empty(0)
    return room.sum(0).to(like.dtype) if shared else room
