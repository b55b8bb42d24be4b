"""The pictures of how near the work came to what the machine can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .case import OURS
from .plot_style import COLOURS, plain_numbers, style
from .rows import Row

# Under what names a run keeps its ceilings: by precision, and by the bytes that a copy moved.
GEMM, COPY = "gemm, FLOP/s", "copy, bytes/s"
BOUNDS = ("arithmetic", "bandwidth")
_GIGA = 1e9


def roofline(run: Mapping[str, Any], rows: Sequence[Row]) -> Figure | None:
    """Rate against arithmetic intensity, under the ceilings of the same run (Williams et al. 2009).

    None where the run has no ceilings or no row of fastgen's with work in matrix products.
    """
    ceilings = run.get("ceilings") or {}
    points = [row for row in rows if row.candidate == OURS and row.quantity == "time" and all(_work(row)) and row.value > 0]
    points = [row for row in points if row.dtype in ceilings.get(GEMM, {})]
    if not points or not ceilings.get(COPY):
        return None
    figure = Figure(figsize=(9.5, 5.8), layout="constrained")
    ax = figure.subplots()
    names = sorted({row.operation for row in points})
    intensities = []
    for row in points:
        flops, moved = _work(row)
        intensities.append(flops / moved)
        chosen = style(names.index(row.operation))
        ax.plot(intensities[-1], flops / (row.value / 1e3) / _GIGA, **chosen, linestyle="", markersize=6, alpha=0.85)
    for i, name in enumerate(names):
        ax.plot([], [], **style(i), linestyle="", label=name)
    _roofs(ax, ceilings, {row.dtype for row in points}, (min(intensities) / 2, max(intensities) * 2))
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel("arithmetic intensity, FLOP per byte that has to move")
    ax.set_ylabel("rate, GFLOP/s")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        plain_numbers(axis, high / low)
    ax.set_title("fastgen under the ceilings measured in the same run", fontsize=11, loc="left")
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _work(row: Row) -> tuple[float, float]:
    """Floating-point operations and bytes; zeros where the row does not say."""
    return row.flops or 0.0, row.bytes or 0.0


def _roofs(ax: Axes, ceilings: Mapping[str, Any], dtypes: set[str], limits: tuple[float, float]) -> None:
    """Flat roofs, one a precision, and the slopes of copies out of memory and out of the caches."""
    copies = {int(size): rate for size, rate in ceilings[COPY].items()}
    slopes = {"memory": copies[max(copies)], "caches": max(copies.values())}
    highest = max(ceilings[GEMM][dtype] for dtype in dtypes)
    # Both slopes are to be seen, also where all the work is right of their ends.
    start = min(limits[0], highest / max(slopes.values()) / 4)
    for (name, bandwidth), line in zip(slopes.items(), ("-", "--"), strict=True):
        ends = [start, highest / bandwidth]
        label = f"copy, {name}: {bandwidth / _GIGA:.0f} GB/s"
        ax.plot(ends, [x * bandwidth / _GIGA for x in ends], color="black", linestyle=line, linewidth=1, label=label)
    for dtype, colour in zip(sorted(dtypes), ("black", "0.45", "0.65"), strict=False):
        rate = ceilings[GEMM][dtype]
        ends = [rate / max(slopes.values()), max(limits[1], rate / min(slopes.values()))]
        label = f"matrix product, {dtype}: {rate / _GIGA:.0f} GFLOP/s"
        ax.plot(ends, [rate / _GIGA] * 2, color=colour, linestyle=":", linewidth=1.4, label=label)


def shares(rows: Sequence[Row]) -> Figure | None:
    """What share of its roof each of fastgen's rows reached, and what that roof is made of; None without such rows."""
    ours = [row for row in rows if row.candidate == OURS and row.share is not None and row.quantity == "time"]
    if not ours:
        return None
    names = sorted({f"{row.operation}, {row.mode}" for row in ours}, reverse=True)
    figure = Figure(figsize=(9, 0.24 * len(names) + 1.6), layout="constrained")
    ax = figure.subplots()
    for bound, colour, marker in zip(BOUNDS, COLOURS, "os", strict=False):
        own = [row for row in ours if row.bound == bound]
        places = [names.index(f"{row.operation}, {row.mode}") for row in own]
        found = [row.share or 0.0 for row in own]
        ax.plot(found, places, marker, color=colour, alpha=0.75, markersize=5, label=f"limited by {bound}")
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(-0.8, len(names) - 0.2)
    low, high = ax.get_xlim()
    plain_numbers(ax.xaxis, high / low)
    ax.set_xlabel("share of the roof: the least time the work can take here, over the time taken", fontsize=9)
    ax.set_title("fastgen: how near to the roof", fontsize=11, loc="left")
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
