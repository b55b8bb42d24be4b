"""The pictures of time and memory against size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .case import OURS
from .exponents import fit
from .plot_style import plain_numbers, style
from .rows import UNITS, Row
from .sizes import AXES, Series

_AXIS_NAMES = {"features": "features D", "width": "hidden width", "depth": "transforms or layers", "batch": "batch, rows"}

Curves = Mapping[Series, Mapping[int, Row]]


def against_size(quantity: str, found: Curves) -> Figure:
    """Cost against each size on logarithmic axes, a panel for each axis, a line for each model and its exponent."""
    axes = [axis for axis in AXES if any(key.axis == axis for key in found)]
    names = list(dict.fromkeys((key.operation, key.mode) for key in found))
    several = len({mode for _, mode in names}) > 1
    columns = min(2, len(axes))
    figure = Figure(figsize=(5.6 * columns, 5.2 * -(-len(axes) // columns) + 0.4), layout="constrained")
    what = "training step" if quantity == "time" else "memory of the gradients"
    figure.suptitle(f"fastgen: {what} against size, and the exponents of the power laws", fontsize=11)
    for ax, axis in zip(_panels(figure, len(axes), columns), axes, strict=True):
        for key, points in found.items():
            if key.axis == axis:
                name = f"{key.operation} {key.mode}" if several else key.operation
                _line(ax, points, names.index((key.operation, key.mode)), f"{name} {_exponent(points)}")
        sizes = {size for key, points in found.items() if key.axis == axis for size in points}
        _size_axes(ax, axis, f"{quantity}, {UNITS[quantity]}", sizes)
        ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return figure


def _exponent(points: Mapping[int, Row]) -> str:
    law = fit({size: row.value for size, row in points.items()})
    return "" if law is None else f"{law.exponent:.2f} ± {law.error:.2f}"


def _line(ax: Axes, points: Mapping[int, Row], i: int, label: str) -> None:
    sizes, values = list(points), [row.value for row in points.values()]
    ax.plot(sizes, values, linewidth=1.4, markersize=5, label=label, **style(i))


def _size_axes(ax: Axes, axis: str, label: str, sizes: Iterable[int]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel(_AXIS_NAMES[axis], fontsize=9)
    ax.set_ylabel(label, fontsize=9)
    ax.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)], fontsize=8)
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    plain_numbers(ax.yaxis, high / low)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)


def against_depth(found: Curves) -> Figure:
    """Memory against depth, a panel for all that is of one size else, a line for each model and candidate."""
    panels = list(dict.fromkeys(key.rest for key in found))
    columns = min(2, len(panels))
    figure = Figure(figsize=(5.6 * columns, 4.4 * -(-len(panels) // columns) + 0.4), layout="constrained")
    figure.suptitle("memory against depth", fontsize=11)
    names = list(dict.fromkeys((key.operation, key.candidate) for key in found))
    for ax, rest in zip(_panels(figure, len(panels), columns), panels, strict=True):
        own = {key: points for key, points in found.items() if key.rest == rest}
        alone = all(key.candidate == OURS for key in own)
        for key, points in own.items():
            label = key.operation if alone else f"{key.operation}: {key.candidate}"
            _line(ax, points, names.index((key.operation, key.candidate)), label)
        sizes = sorted({size for points in own.values() for size in points})
        ax.set_ylim(0, None)
        ax.set_title(rest, fontsize=9)
        ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
        ax.set_xlabel(_AXIS_NAMES["depth"], fontsize=9)
        ax.set_ylabel("extra memory, MiB", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, frameon=False)
    return figure


def _panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """As many axes as asked for, row by row; what is left of the last row stays empty."""
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for ax in panels[count:]:
        ax.remove()
    return panels[:count]
