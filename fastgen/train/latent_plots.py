"""The picture of a two-dimensional latent space: where held-out rows lie in it, and what its points stand for."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data import Dataset
from .plots import Rows, draw_tiles, grey_range

# Latent points of a grid, each way: quantiles of the prior.
GRID = 16
_POINTS = 4000


def latent_figure(data: Dataset, z: Rows, labels: NDArray[np.integer] | None, decoded: Rows | None, title: str) -> Figure:
    """Latent vectors as points, in a colour for each label where there are any; beside them what a grid of them stands for.

    Args:
        z: (rows, 2).
        labels: (rows,), whole numbers from 0.
        decoded: (GRID * GRID, features), for points row by row from the upper left; None for data that are no images.
    """
    count = 1 if decoded is None else 2
    figure = Figure(figsize=(5.6 * count, 5.2), layout="constrained")
    figure.suptitle(title, fontsize=13)
    first, *rest = figure.subplots(1, count, squeeze=False)[0]
    _draw_points(first, z[:_POINTS], None if labels is None else labels[:_POINTS])
    for ax in rest:
        assert decoded is not None
        ax.set_title("quantiles of the prior, decoded", fontsize=11)
        draw_tiles(ax, data.images(decoded), (GRID, GRID), grey_range(data))
    return figure


def _draw_points(ax: Axes, z: Rows, labels: NDArray[np.integer] | None) -> None:
    ax.set_title("held-out rows", fontsize=11)
    if labels is None:
        ax.scatter(z[:, 0], z[:, 1], s=4, alpha=0.6, linewidths=0, color="tab:blue")
    else:
        for label in np.unique(labels):
            chosen = z[labels == label]
            colour = f"C{label % 10}"
            ax.scatter(chosen[:, 0], chosen[:, 1], s=5, alpha=0.7, linewidths=0, color=colour, label=str(label))
        ax.legend(fontsize=8, markerscale=3, loc="upper right")
    ax.set_xlabel("z, feature 0", fontsize=9)
    ax.set_ylabel("z, feature 1", fontsize=9)
    ax.set_aspect("equal", adjustable="datalim")
    ax.tick_params(labelsize=8)
