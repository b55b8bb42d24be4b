"""A coupling layer and its gradient: every input read once, every output written once, in the order x lies in memory.

Tensors are (B, C, S): C features or channels at S sites, 1 for vectors and H * W for images, of any strides. The mask is
`places` (C,), int32, k for the k-th channel where it is True and -1 where it is False; or, for images, `pattern`, the width W
and the parity of a checkerboard. shift and log_scale have C channels, or those only where the mask is True: compact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._affine import affine, affine_gradients
from ._launch import accumulator
from ._rows import RowTile, launch_rows, load_row_values, load_tile, row_parts, row_tile, store_tile, strides
from ._scale_map import log_scale_of, through_scale_map


@triton.jit
def _rows_and_start(parts, share, ROWS: tl.constexpr, LONG: tl.constexpr):
    """The rows of this program, which part of them it takes, and where that starts."""
    program = tl.program_id(0)
    part = program % parts
    return program // parts * ROWS + tl.arange(0, ROWS), part, (part.to(tl.int64) if LONG else part) * share


@triton.jit
def _mask_at(
    i,
    length,
    places,
    INNER: tl.constexpr,
    CHANNELS_INNER: tl.constexpr,
    WIDTH: tl.constexpr,
    PARITY: tl.constexpr,
    COMPACT: tl.constexpr,
):
    """At positions i of a row: the channel, the site, the channel of shift and log_scale, and whether the mask is True."""
    if INNER is None:
        channel, site = i, tl.zeros_like(i)
    elif CHANNELS_INNER:
        channel, site = i % INNER, i // INNER
    else:
        channel, site = i // INNER, i % INNER
    if places is None:
        return channel, site, channel, (i < length) & (((site // WIDTH + site % WIDTH) & 1) == PARITY)
    else:
        place = tl.load(places + channel, mask=i < length, other=-1)
        return channel, site, place if COMPACT else channel, place >= 0


@triton.jit
def _around(chosen, GROUP: tl.constexpr):
    """Whether any of a group of GROUP neighbours is chosen: loads under this mask stay as wide as the group."""
    if GROUP is None:
        return tl.full(chosen.shape, 1, tl.int1)
    else:
        groups: tl.constexpr = chosen.shape[0] // GROUP
        # Of integers: a maximum of truth values leaves a stack slot behind.
        some = tl.sum(tl.reshape(chosen.to(tl.int32), (groups, GROUP)), 1)
        return tl.max_constancy(tl.reshape(tl.broadcast_to(some[:, None], (groups, GROUP)), chosen.shape) > 0, [GROUP])


@triton.jit
def _offset(i, channel, site, channel_stride, site_stride, FLAT: tl.constexpr):
    if FLAT:
        return i
    else:
        # 64-bit: any stride may be large.
        return channel.to(tl.int64) * channel_stride + site.to(tl.int64) * site_stride


@triton.jit
def _forward_kernel(
    x,
    shift,
    log_scale,
    log_det,
    places,
    y,
    sums,
    batch,
    length,
    share,
    parts,
    x_row,
    x_channel,
    x_site,
    shift_row,
    shift_channel,
    shift_site,
    log_scale_row,
    log_scale_channel,
    log_scale_site,
    y_row,
    y_channel,
    y_site,
    log_det_stride,
    INVERSE: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INNER: tl.constexpr,
    CHANNELS_INNER: tl.constexpr,
    WIDTH: tl.constexpr,
    PARITY: tl.constexpr,
    COMPACT: tl.constexpr,
    FLAT: tl.constexpr,
    FLAT_SHIFT: tl.constexpr,
    LONG: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, part, first = _rows_and_start(parts, share, ROWS, LONG)
    total = tl.zeros((ROWS, COLUMNS), tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32)
    for start in range(first, tl.minimum(first + share, length), COLUMNS):
        i = start + tl.arange(0, COLUMNS)
        channel, site, column, chosen = _mask_at(i, length, places, INNER, CHANNELS_INNER, WIDTH, PARITY, COMPACT)
        mask = (row < batch)[:, None] & (i < length)[None, :]
        given = mask & (chosen if COMPACT else _around(chosen, GROUP))[None, :]
        u = load_tile(x, row, _offset(i, channel, site, x_channel, x_site, FLAT), x_row, 1, mask)
        t = load_tile(shift, row, _offset(i, column, site, shift_channel, shift_site, FLAT_SHIFT), shift_row, 1, given)
        if log_scale is None:
            v = u - t if INVERSE else u + t
        else:
            at = _offset(i, column, site, log_scale_channel, log_scale_site, FLAT_SHIFT)
            s = log_scale_of(load_tile(log_scale, row, at, log_scale_row, 1, given), KIND, A, B)
            v = affine(u, t, s, INVERSE)
            total += tl.where(mask & chosen[None, :], s, 0.0)
        v = tl.where(chosen[None, :], v, u)
        store_tile(y, row, _offset(i, channel, site, y_channel, y_site, FLAT), y_row, v, mask)
    if log_scale is not None:
        change = -tl.sum(total, 1) if INVERSE else tl.sum(total, 1)
        before = load_row_values(log_det, row, log_det_stride, row < batch)
        tl.store(sums + row.to(tl.int64) * parts + part, before + change, mask=row < batch)


@triton.jit
def _backward_kernel(
    grad_y,
    grad_log_det,
    x,
    shift,
    log_scale,
    places,
    gx,
    gshift,
    glog_scale,
    batch,
    length,
    share,
    parts,
    grad_row,
    grad_channel,
    grad_site,
    grad_log_det_stride,
    x_row,
    x_channel,
    x_site,
    shift_row,
    shift_channel,
    shift_site,
    log_scale_row,
    log_scale_channel,
    log_scale_site,
    gx_row,
    gx_channel,
    gx_site,
    gshift_row,
    gshift_channel,
    gshift_site,
    glog_scale_row,
    glog_scale_channel,
    glog_scale_site,
    INVERSE: tl.constexpr,
    KIND: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    INNER: tl.constexpr,
    CHANNELS_INNER: tl.constexpr,
    WIDTH: tl.constexpr,
    PARITY: tl.constexpr,
    COMPACT: tl.constexpr,
    FLAT: tl.constexpr,
    FLAT_SHIFT: tl.constexpr,
    LONG: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, _, first = _rows_and_start(parts, share, ROWS, LONG)
    gl = load_row_values(grad_log_det, row, grad_log_det_stride, row < batch)[:, None]
    for start in range(first, tl.minimum(first + share, length), COLUMNS):
        i = start + tl.arange(0, COLUMNS)
        channel, site, column, chosen = _mask_at(i, length, places, INNER, CHANNELS_INNER, WIDTH, PARITY, COMPACT)
        mask = (row < batch)[:, None] & (i < length)[None, :]
        mapped = mask & chosen[None, :]
        kept = mapped if COMPACT else mask
        g = load_tile(grad_y, row, _offset(i, channel, site, grad_channel, grad_site, FLAT), grad_row, 1, mask)
        if log_scale is None:
            gu = g
            gt = -g if INVERSE else g
        else:
            around = mask & _around(chosen, GROUP)[None, :]
            given = mapped if COMPACT else around
            u = load_tile(x, row, _offset(i, channel, site, x_channel, x_site, FLAT), x_row, 1, around)
            t = load_tile(shift, row, _offset(i, column, site, shift_channel, shift_site, FLAT_SHIFT), shift_row, 1, given)
            at = _offset(i, column, site, log_scale_channel, log_scale_site, FLAT_SHIFT)
            a = load_tile(log_scale, row, at, log_scale_row, 1, given)
            gu, gt, gs = affine_gradients(g, gl, u, t, log_scale_of(a, KIND, A, B), INVERSE)
            ga = tl.where(mapped, through_scale_map(gs, a, KIND, A, B), 0.0)
            at = _offset(i, column, site, glog_scale_channel, glog_scale_site, FLAT_SHIFT)
            store_tile(glog_scale, row, at, glog_scale_row, ga, kept)
        at = _offset(i, channel, site, gx_channel, gx_site, FLAT)
        store_tile(gx, row, at, gx_row, tl.where(mapped, gu, g), mask)
        at = _offset(i, column, site, gshift_channel, gshift_site, FLAT_SHIFT)
        store_tile(gshift, row, at, gshift_row, tl.where(mapped, gt, 0.0), kept)


def forward(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    log_det: Tensor | None,
    places: Tensor | None,
    pattern: tuple[int, int] | None,
    inverse: bool,
    kind: int,
    a: float,
    b: float,
) -> tuple[Tensor, Tensor]:
    """y, laid out as x, and log_det (B,); without log_scale the additive form."""
    y = torch.empty_like(x)
    batch, channels, sites = x.shape
    tile = row_tile(x)
    share, parts = row_parts(x, tile)
    sums = None if log_scale is None else x.new_empty((batch, parts), dtype=accumulator(x.dtype))
    if batch:
        launch_rows(
            _forward_kernel,
            x,
            tile,
            x,
            shift,
            log_scale,
            log_det if parts == 1 else None,
            places,
            y,
            sums,
            batch,
            channels * sites,
            share,
            parts,
            *x.stride(),
            *shift.stride(),
            *strides(log_scale, 3),
            *y.stride(),
            0 if log_det is None else log_det.stride(0),
            INVERSE=inverse,
            KIND=kind,
            A=a,
            B=b,
            parts=parts,
            **_layout(x, pattern, tile, (x, y), (shift, log_scale)),
        )
    if sums is None:
        return y, x.new_zeros(batch, dtype=accumulator(x.dtype)) if log_det is None else log_det.clone()
    if parts == 1:
        return y, sums.view(batch)
    total = sums.sum(1)
    return y, total if log_det is None else log_det + total


def backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    places: Tensor | None,
    pattern: tuple[int, int] | None,
    inverse: bool,
    kind: int,
    a: float,
    b: float,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, shift and log_scale, each laid out as its tensor, those that are needed; an absent incoming
    gradient is zero. The additive form takes of x and shift their shapes and strides only."""
    gx, gshift, glog_scale = (
        torch.empty_like(t) if n and t is not None else None for t, n in zip((x, shift, log_scale), needs, strict=True)
    )
    batch, channels, sites = x.shape
    if batch == 0 or all(t is None for t in (gx, gshift, glog_scale)):
        return gx, gshift, glog_scale
    tile = row_tile(x)
    share, parts = row_parts(x, tile)
    launch_rows(
        _backward_kernel,
        x,
        tile,
        grad_y,
        grad_log_det,
        x,
        shift,
        log_scale,
        places,
        gx,
        gshift,
        glog_scale,
        batch,
        channels * sites,
        share,
        parts,
        *strides(grad_y, 3),
        0 if grad_log_det is None else grad_log_det.stride(0),
        *x.stride(),
        *shift.stride(),
        *strides(log_scale, 3),
        *strides(gx, 3),
        *strides(gshift, 3),
        *strides(glog_scale, 3),
        INVERSE=inverse,
        KIND=kind,
        A=a,
        B=b,
        parts=parts,
        **_layout(x, pattern, tile, (grad_y, x, gx), (shift, log_scale, gshift, glog_scale)),
    )
    return gx, gshift, glog_scale


def _layout(
    x: Tensor,
    pattern: tuple[int, int] | None,
    tile: RowTile,
    alike: Sequence[Tensor | None],
    shifts: Sequence[Tensor | None],
) -> dict[str, Any]:
    """How a kernel walks a row: what it is told of the mask, of tensors of x's shape and of those of shift's."""
    _, channels, sites = x.shape
    # The axis that is next in memory; of vectors there is one.
    channels_inner = sites == 1 or (channels > 1 and x.stride(1) < x.stride(2))
    compact = any(t is not None and t.shape[1] != channels for t in shifts)
    width, parity = pattern or (None, None)
    flat = all(_is_flat(t, channels_inner) for t in alike)
    return {
        "INNER": None if sites == 1 else channels if channels_inner else sites,
        "CHANNELS_INNER": channels_inner,
        "WIDTH": width,
        "PARITY": parity,
        "COMPACT": compact,
        "FLAT": flat,
        "FLAT_SHIFT": not compact and all(_is_flat(t, channels_inner) for t in shifts),
        "LONG": channels * sites + tile.columns >= 1 << 31,
        # Elements of a load of 128 bits; along a row of pixels any has some of a checkerboard.
        "GROUP": None if pattern and not channels_inner else min(16 // x.element_size(), tile.columns),
    }


def _is_flat(t: Tensor | None, channels_inner: bool) -> bool:
    """Whether each row of t (B, C, S) lies in memory without gaps, in this order."""
    if t is None:
        return True
    _, channels, sites = t.shape
    inner, outer = (1, channels) if channels_inner else (sites, 1)
    return (channels == 1 or t.stride(1) == inner) and (sites == 1 or t.stride(2) == outer)
