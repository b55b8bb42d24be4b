"""The picture of a distilled flow: data, samples of teacher and student, and how far apart the two are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data import Dataset
from .observer import Epoch
from .plots import Rows, draw_rows, held_out_rows


def distillation_figure(data: Dataset, samples: Mapping[str, Rows], records: Sequence[Epoch], title: str) -> Figure:
    """Held-out data beside samples, each under its name, and KL(student || teacher) in nats per row over the epochs.

    samples: (rows, features) each.
    records: of the training run, -KL in nats per dimension.
    """
    panels = {"held-out data": held_out_rows(data), **samples}
    figure = Figure(figsize=(4.2 * (len(panels) + 1) + 1.2, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=13)
    *drawn, last = figure.subplots(1, len(panels) + 1, width_ratios=[1.0] * len(panels) + [1.4])
    for ax, (name, rows) in zip(drawn, panels.items(), strict=True):
        ax.set_title(name, fontsize=11)
        draw_rows(ax, data, rows)
    _draw_divergence(last, records, data.features)
    return figure


def _draw_divergence(ax: Axes, records: Sequence[Epoch], features: int) -> None:
    ax.set_title("KL(student || teacher)", fontsize=11)
    epochs = [r.epoch for r in records]
    ax.plot(epochs, [-features * r.train for r in records], color="tab:blue", linewidth=1.2, label="train")
    ax.plot(epochs, [-features * r.valid for r in records], color="tab:orange", linewidth=1.6, label="valid")
    # An estimate of a number near 0 may be below it.
    if all(r.train < 0 and r.valid < 0 for r in records):
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("nats per row")
    ax.grid(alpha=0.25, which="both")
    ax.legend(fontsize=8)
