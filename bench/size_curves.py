"""The pictures of time and memory against size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .exponents import fit
from .measure import Row
from .plot_style import plain_numbers, style
from .sizes import AXES, Series

UNITS = {"time": "ms", "extra memory": "MiB"}
_AXIS_NAMES = {"features": "features D", "width": "hidden width", "depth": "transforms or layers", "batch": "batch, rows"}

Curves = Mapping[Series, Mapping[int, Row]]


def against_size(quantity: str, found: Curves) -> Figure:
    """Cost against each size on logarithmic axes, a panel for each axis, a line for each model and its exponent."""
    axes = [axis for axis in AXES if any(key.axis == axis for key in found)]
    models = list(dict.fromkeys(key.operation for key in found))
    figure = Figure(figsize=(4.6 * len(axes) + 0.4, 5.6), layout="constrained")
    what = "training step" if quantity == "time" else "memory of the gradients"
    figure.suptitle(f"fastgen: {what} against size, and the exponents of the power laws", fontsize=11)
    for ax, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        for key, points in found.items():
            if key.axis == axis:
                i = models.index(key.operation)
                _line(ax, points, i, f"{key.operation} {_exponent(points)}")
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
    """Memory against depth, a panel for each model and size, a line for each candidate."""
    panels = list(dict.fromkeys((key.operation, key.rest) for key in found))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 0.4, 3.6 * lines + 0.5), layout="constrained")
    figure.suptitle("memory against depth", fontsize=11)
    spots = figure.subplots(lines, columns, squeeze=False).flat
    names = list(dict.fromkeys(key.candidate for key in found))
    for ax, (operation, rest) in zip(spots, panels, strict=False):
        own = {key: points for key, points in found.items() if (key.operation, key.rest) == (operation, rest)}
        for key, points in own.items():
            _line(ax, points, names.index(key.candidate), key.candidate)
        sizes = {size for points in own.values() for size in points}
        ax.set_ylim(0, None)
        ax.set_title(f"{operation}, {rest}", fontsize=9)
        ax.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)], fontsize=8)
        ax.set_xlabel(_AXIS_NAMES["depth"], fontsize=9)
        ax.set_ylabel("extra memory, MiB", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
        if len(own) > 1:
            ax.legend(fontsize=8, frameon=False)
    for ax in figure.axes[len(panels) :]:
        ax.remove()
    return figure
