"""The picture of a trained density: data, samples, the density itself where it has two dimensions, the learning curve."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..data import Dataset
from ..io import write_atomically
from .observer import Epoch

Rows = NDArray[np.floating]
LogProb = Callable[[Rows], NDArray[np.floating]]

_TILES = 8
_POINTS = 4000
_DENSITY_PIXELS = 200
_DPI = 130


def save_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a figure as PNG, atomically. Raises FileError where it cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_atomically(path, content.getvalue())


def summary_figure(
    data: Dataset, samples: Rows, log_prob: LogProb, records: Sequence[Epoch], levels: Mapping[str, float], title: str
) -> Figure:
    """Data beside samples and the learning curve, and the density where there are two features and no context.

    Args:
        samples: (rows, features), drawn from the model.
        log_prob: (rows, features) -> (rows,), in nats.
        records: of the training run.
        levels: name and log-likelihood in nats per dimension of what the curve is to be compared with.
    """
    density = data.features == 2 and data.levels is None and data.context_features == 0
    names = ["held-out data", "samples", *(["density"] if density else []), "learning curve"]
    figure = Figure(figsize=(4.2 * len(names) + 1.2, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=13)
    widths = [1.0] * (len(names) - 1) + [1.4]
    axes = dict(zip(names, figure.subplots(1, len(names), squeeze=False, width_ratios=widths)[0], strict=True))
    for name, ax in axes.items():
        ax.set_title(name, fontsize=11)
    for name, rows in (("held-out data", held_out_rows(data)), ("samples", samples)):
        draw_rows(axes[name], data, rows)
    if density:
        _draw_density(axes["density"], data, log_prob)
    _draw_curve(axes["learning curve"], records, levels)
    return figure


def rows_figure(data: Dataset, rows: Rows, title: str) -> Figure:
    """Rows as `draw_rows` draws them."""
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title, fontsize=11)
    draw_rows(ax, data, rows)
    return figure


def held_out_rows(data: Dataset) -> Rows:
    """The first held-out rows, as many as fit in memory together."""
    return next(data.held_out("test")).rows


def draw_rows(ax: Axes, data: Dataset, rows: Rows) -> None:
    """Draws the first rows as a square grid of images, or their first two features as points.

    Of levels that are no images the mean of every feature is drawn, against that of the held-out rows; of a single feature
    a histogram.
    """
    if data.image_shape:
        _draw_images(ax, data, rows)
    elif data.levels is not None:
        _draw_means(ax, data, rows)
    elif data.features == 1:
        _draw_histogram(ax, data, rows)
    else:
        _draw_points(ax, data, rows)


def grey_range(data: Dataset) -> tuple[float, float]:
    """What is black and what is white in the images of a data set."""
    if data.levels is not None:
        return 0.0, float(data.levels if data.noise else data.levels - 1)
    extreme = float(np.quantile(np.abs(held_out_rows(data)), 0.98))
    return -extreme, extreme


def _draw_images(ax: Axes, data: Dataset, rows: Rows) -> None:
    edge = min(_TILES, int(np.ceil(np.sqrt(len(rows)))))
    draw_tiles(ax, data.images(rows[: edge * edge]), (edge, edge), grey_range(data))


def draw_tiles(ax: Axes, images: Rows, tiles: tuple[int, int], limits: tuple[float, float], colours: str = "gray") -> None:
    """Draws images (n, height, width) row by row on a sheet of (down, across) tiles.

    limits: what the lowest and the highest of the colours stand for.
    """
    height, width = images.shape[1:]
    # A margin of one pixel between the images stays empty.
    sheet = np.full((tiles[0] * (height + 1) - 1, tiles[1] * (width + 1) - 1), np.nan, dtype=np.float32)
    for i, image in enumerate(images):
        top, left = i // tiles[1] * (height + 1), i % tiles[1] * (width + 1)
        sheet[top : top + height, left : left + width] = image
    ax.imshow(sheet, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set_axis_off()


def _window(data: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.quantile(held_out_rows(data)[:, :2].astype(np.float64), [0.001, 0.999], axis=0)
    margin = 0.15 * (high - low) + 1e-6
    return low - margin, high + margin


def _frame(ax: Axes, data: Dataset) -> None:
    low, high = _window(data)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), box_aspect=1)
    ax.tick_params(labelsize=8)
    if data.features > 2 or data.columns:
        names = data.columns or ("feature 0", "feature 1")
        ax.set_xlabel(names[0], fontsize=9)
        ax.set_ylabel(names[1], fontsize=9)


def _draw_points(ax: Axes, data: Dataset, rows: Rows) -> None:
    ax.scatter(rows[:_POINTS, 0], rows[:_POINTS, 1], s=2, alpha=0.5, linewidths=0, color="tab:blue")
    _frame(ax, data)


def _draw_histogram(ax: Axes, data: Dataset, rows: Rows) -> None:
    low, high = _window(data)
    ax.hist(rows[:, 0], bins=60, range=(float(low[0]), float(high[0])), density=True, color="tab:blue")
    ax.set_xlabel(data.columns[0] if data.columns else "feature 0", fontsize=9)


def _draw_means(ax: Axes, data: Dataset, rows: Rows) -> None:
    expected = held_out_rows(data).mean(axis=0)
    ax.scatter(expected, rows.mean(axis=0), s=8, alpha=0.7, linewidths=0, color="tab:blue")
    ax.axline((0, 0), slope=1, color="0.5", linewidth=0.8)
    ax.set_xlabel("mean of each feature, held-out rows", fontsize=9)
    ax.set_ylabel("mean of each feature", fontsize=9)


def _draw_density(ax: Axes, data: Dataset, log_prob: LogProb) -> None:
    low, high = _window(data)
    x, y = (np.linspace(low[i], high[i], _DENSITY_PIXELS) for i in range(2))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    density = np.exp(log_prob(points)).reshape(_DENSITY_PIXELS, _DENSITY_PIXELS)
    # A few spikes must not leave everything else dark.
    ceiling = max(float(np.quantile(density, 0.995)), float(np.finfo(np.float32).tiny))
    extent = (low[0], high[0], low[1], high[1])
    ax.imshow(density, origin="lower", extent=extent, cmap="magma", vmin=0, vmax=ceiling, aspect="auto")
    _frame(ax, data)


def _draw_curve(ax: Axes, records: Sequence[Epoch], levels: Mapping[str, float]) -> None:
    epochs = [r.epoch for r in records]
    best = max(records, key=lambda r: r.valid)
    # A line through one point does not show.
    marker = "." if len(records) == 1 else None
    ax.plot(epochs, [r.train for r in records], color="tab:blue", linewidth=1.2, marker=marker, label="train")
    ax.plot(epochs, [r.valid for r in records], color="tab:orange", linewidth=1.6, label="valid")
    ax.plot(best.epoch, best.valid, "o", color="tab:orange", markersize=5, label=f"best: epoch {best.epoch}")
    highest = max(levels, key=lambda name: levels[name], default=None)
    for name, nats in levels.items():
        ax.axhline(nats, color="0.35", linestyle="--", linewidth=1.2, label=f"_{name}")
        # The label of the highest above its line, others below theirs: lines close to each other leave both to be read.
        side = "bottom" if name == highest else "top"
        ax.annotate(name, (0.985, nats), xycoords=("axes fraction", "data"), ha="right", va=side, fontsize=8, color="0.25")
    shown = [best.valid, max(r.train for r in records), *levels.values()]
    margin = 0.08 * (max(shown) - min(shown)) + 1e-3
    # The first epochs of an untrained model would flatten everything after them.
    ax.set_ylim(min(shown) - margin, max(shown) + margin)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_ylabel("log-likelihood, nats per dimension")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, loc="best")
