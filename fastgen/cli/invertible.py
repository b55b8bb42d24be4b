"""What `fastgen plot` draws of a flow as an invertible map."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset, Part
from ..flows import Flow
from ..train.batches import place
from ..train.flow_plots import TILES, expect_drawable, interpolation_figure, reconstruction_figure
from ..train.plots import Rows
from .draw import noisy_levels
from .errors import UserError
from .restore import Trained

# Held-out rows that go there and back.
REBUILT_ROWS = 1024


def interpolation(trained: Trained, data: Dataset) -> tuple[Figure, str]:
    """The way between pairs of held-out rows, the first of each pair's context kept; and what is printed of it.

    Raises UserError for a model that is no flow, and for data that such a way cannot be drawn of.
    """
    flow = _flow(trained, "interpolation")
    try:
        expect_drawable(data)
    except ValueError as error:
        raise UserError(f"--kind interpolation: {error}") from error
    pairs, steps = TILES
    part = _held_out(data, 2 * pairs)
    x, context, _ = place(part, next(flow.parameters()))
    pairs = len(part) // 2
    ways = flow.interpolate(x[0::2][:pairs], x[1::2], steps, None if context is None else context[0::2][:pairs])
    paths = _within_levels(ways.flatten(2), data).transpose(0, 1).cpu().numpy()
    return interpolation_figure(
        data, paths, f"{trained.name}: between held-out rows of {data.name}"
    ), f"{pairs} pairs of held-out rows, {steps} steps each"


def reconstruction(trained: Trained, data: Dataset) -> tuple[Figure, str]:
    """Held-out rows beside what the inverse makes of their noise, and the largest error. Raises UserError for no flow."""
    flow = _flow(trained, "reconstruction")
    part = _held_out(data, REBUILT_ROWS)
    rebuilt = _there_and_back(flow, part)
    largest = np.abs(rebuilt - part.rows).max()
    found = f"inverse(forward(x)) - x over {len(part)} held-out rows: at most {largest:.3g} where x is up to {_size(part):.3g}"
    return reconstruction_figure(data, part.rows, rebuilt, f"{trained.name} on {data.name}"), found


def _size(part: Part) -> float:
    return float(np.abs(part.rows).max())


def _flow(trained: Trained, kind: str) -> Flow:
    if not isinstance(trained.model, Flow):
        raise UserError(f"--kind {kind}: expected a flow, found {trained.name}")
    return trained.model


def _held_out(data: Dataset, rows: int) -> Part:
    part = next(data.held_out("test"))
    if len(part) < 2:
        raise UserError(f"{data.name}: expected at least 2 test rows to draw, found {len(part)}")
    return part.take(np.arange(min(rows, len(part))))


def _within_levels(x: Tensor, data: Dataset) -> Tensor:
    levels = noisy_levels(data)
    return x if levels is None else x.clamp(0, levels)


@torch.no_grad()
def _there_and_back(flow: Flow, part: Part) -> Rows:
    x, context, _ = place(part, next(flow.parameters()))
    seen = flow.seen_context(context)
    z, _ = flow.transform(x, seen)
    rebuilt: NDArray[np.floating] = flow.transform.inverse(z, seen)[0].cpu().numpy()
    return rebuilt
