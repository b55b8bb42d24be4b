"""The picture of what every candidate takes beside fastgen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .plot_style import COLOURS, plain_numbers
from .rows import Row

_TARGET: dict[str, Any] = {"marker": "D", "color": "white", "markeredgecolor": "black", "markersize": 4, "linestyle": ""}


def speedups(operation: str, rows: Sequence[Row], usual: str | None) -> Figure:
    """Bars from 1 to how many times longer each candidate takes, the quartiles as lines and targets as diamonds.

    rows: those of one operation that have a ratio. usual: the instruction set that goes without saying.
    """
    names = list(dict.fromkeys(row.candidate for row in rows))
    cases = [list(group) for _, group in groupby(rows, key=_case)]
    figure = Figure(figsize=(9, 0.17 * len(rows) + 0.22 * len(cases) + 1.4), layout="constrained")
    ax = figure.subplots()
    y, ticks, labels = 0.0, [], []
    for group in cases:
        for row in group:
            _bar(ax, y, row, COLOURS[names.index(row.candidate) % len(COLOURS)])
            y += 1
        ticks.append(y - (len(group) + 1) / 2)
        labels.append(_label(group[0], usual))
        y += 1.2
    ax.set_yticks(ticks, labels, fontsize=8)
    ax.set_ylim(y - 1, -1)
    _ratio_axis(ax, [n for row in rows for n in (row.ratio, row.ratio_low, row.ratio_high, row.target) if n])
    ax.set_title(f"{operation}: what others take over what fastgen takes; above 1 fastgen is ahead", fontsize=10.5, loc="left")
    handles: list[Patch | Line2D] = [Patch(color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)]
    handles += [Line2D([], [], label="target", **_TARGET)] * any(row.target for row in rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _case(row: Row) -> tuple[str, ...]:
    return row.mode, row.shape, row.instructions, row.dtype, row.quantity


def _label(row: Row, usual: str | None) -> str:
    beside = [row.instructions] if row.device == "cpu" and row.instructions != usual else []
    beside += [row.dtype] if row.dtype != "float32" else []
    beside += [row.quantity] if row.quantity != "time" else []
    return f"{row.mode}\n{row.shape}" + (f" ({', '.join(beside)})" if beside else "")


def _bar(ax: Axes, y: float, row: Row, colour: str) -> None:
    assert row.ratio is not None
    ax.barh(y, row.ratio - 1, left=1, height=0.86, color=colour)
    if row.ratio_low and row.ratio_high and row.ratio_high > row.ratio_low:
        ax.plot([row.ratio_low, row.ratio_high], [y, y], color="black", linewidth=0.9)
    if row.target:
        ax.plot(row.target, y, zorder=4, **_TARGET)
    # In a column of their own no number is in the way of a bar; those that are lost stand out.
    number = f"{row.ratio:.{2 - (row.ratio >= 10) - (row.ratio >= 100)}f}"
    colour = "#D55E00" if row.ratio < 1 else "black"
    ax.annotate(number, (1.05, y), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8, color=colour)


def _ratio_axis(ax: Axes, values: Sequence[float]) -> None:
    ax.set_xscale("log")
    low, high = min(*values, 0.8), max(*values, 1.25)
    margin = 1.03 * (high / low) ** 0.04
    ax.set_xlim(low / margin, high * margin)
    ax.axvline(1, color="black", linewidth=1)
    plain_numbers(ax.xaxis, high / low)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    ax.set_xlabel("median of the ratios of pairs; line: quartiles", fontsize=9)
