"""What the pictures have in common: colours, markers, numbers on logarithmic axes."""

from __future__ import annotations

from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe & Ito's colours, told apart with any kind of colour vision; black is kept for marks.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A7D00", "#666666")
MARKERS = "os^Dv<>P"


def style(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th line or point: no two of the first 64 share both."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


def plain_numbers(axis: Axis, span: float) -> None:
    """Ticks of a logarithmic axis whose limits are `span` apart, as plain numbers."""
    subs = (1, 1.2, 1.5, 2, 3, 4, 5, 7) if span < 5 else (1, 2, 5) if span < 300 else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
