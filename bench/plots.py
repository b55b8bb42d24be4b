"""The pictures of a run of benchmarks. A kind of picture with no rows among the results is not drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastgen.train.plots import save_figure

from .case import OURS
from .roofline import roofline, shares
from .rows import Row
from .size_curves import against_depth, against_size
from .sizes import series
from .speedup_bars import speedups


def draw(run: dict[str, Any], rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes PNG files into the folder, which is made if there is none; their paths. Raises FileError."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, figure in figures(run, rows):
        drawn.append(folder / f"{name}.png")
        save_figure(drawn[-1], figure)
    return drawn


def figures(run: dict[str, Any], rows: Sequence[Row]) -> Iterable[tuple[str, Figure]]:
    """The pictures by the names of their files."""
    for operation, own in _by_operation(row for row in rows if row.ratio is not None):
        yield f"speedup-{re.sub(r'[^0-9A-Za-z_]+', '-', operation)}", speedups(operation, own, run.get("cpu_variant"))
    for name, found in (("roofline", roofline(run, rows)), ("share-of-the-roof", shares(rows))):
        if found is not None:
            yield name, found
    swept = series(rows)
    costs = {key: points for key, points in swept.items() if key.candidate == OURS and len(points) > 2}
    for quantity in ("time", "extra memory"):
        kept = {key: points for key, points in costs.items() if key.quantity == quantity}
        if kept:
            yield f"{quantity.replace(' ', '-')}-against-size", against_size(quantity, kept)
    memory = {key: points for key, points in swept.items() if key.quantity == "extra memory" and key.axis == "depth"}
    if memory:
        yield "memory-against-depth", against_depth(memory)


def _by_operation(rows: Iterable[Row]) -> Iterable[tuple[str, list[Row]]]:
    for operation, own in groupby(sorted(rows, key=lambda row: row.operation), key=lambda row: row.operation):
        yield operation, list(own)
