"""Pictures of a flow as an invertible map: the way between two rows through its noise, and rows that went there and back."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data import Dataset
from .plots import Rows, draw_rows, draw_tiles, grey_range, held_out_rows

# What a picture shows of images.
TILES = (8, 8)


def interpolation_figure(data: Dataset, paths: Rows, title: str) -> Figure:
    """Paths between pairs of rows: of images a line of pictures each, of points of two features a line through the data.

    Args:
        paths: (pairs, steps, features), ends included.

    Raises ValueError for data that is neither.
    """
    expect_drawable(data)
    pairs, steps, features = paths.shape
    size = (0.7 * steps + 0.4, 0.7 * pairs + 0.8) if data.image_shape else (5.0, 5.2)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    ax.set_title(title, fontsize=11)
    if data.image_shape:
        draw_tiles(ax, data.images(paths.reshape(-1, features)), (pairs, steps), grey_range(data))
    else:
        draw_rows(ax, data, held_out_rows(data))
        for path in paths:
            ax.plot(path[:, 0], path[:, 1], ".-", color="tab:orange", linewidth=1.2, markersize=4)
            ax.plot(path[[0, -1], 0], path[[0, -1], 1], "o", color="tab:red", markersize=5)
    return figure


def expect_drawable(data: Dataset) -> None:
    """Raises ValueError where the way from one row to another cannot be drawn."""
    if data.image_shape is None and data.features != 2:
        raise ValueError(f"expected images or points of two features, found {data.features} features in {data.name}")


def reconstruction_figure(data: Dataset, rows: Rows, rebuilt: Rows, title: str, name: str = "inverse(forward(x))") -> Figure:
    """Rows (n, features), what the inverse makes of their noise, or another `name` for it, and the difference of the two."""
    figure = Figure(figsize=(13.5, 4.9), layout="constrained")
    figure.suptitle(title, fontsize=13)
    first, second, last = figure.subplots(1, 3)
    for ax, what, shown in ((first, "x", rows), (second, name, rebuilt)):
        ax.set_title(what, fontsize=11)
        draw_rows(ax, data, shown)
    _draw_errors(last, data, rebuilt - rows)
    return figure


def _draw_errors(ax: Axes, data: Dataset, errors: Rows) -> None:
    largest = float(np.abs(errors).max())
    ax.set_title(f"difference, at most {largest:.2g}", fontsize=11)
    if data.image_shape:
        limit = max(largest, float(np.finfo(np.float32).tiny))
        draw_tiles(ax, data.images(errors[: TILES[0] * TILES[1]]), TILES, (-limit, limit), "RdBu")
    else:
        ax.hist(np.abs(errors).max(axis=1), bins=60, color="tab:blue")
        ax.set_xlabel("largest difference of a row, in units of the data", fontsize=9)
        ax.set_ylabel("rows", fontsize=9)
