"""Samples of a model and the picture of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from ..data import Dataset
from ..train import Epoch
from ..train.plots import Rows, summary_figure

# Samples in the picture.
IMAGES, POINTS = 64, 4000


def draw_samples(
    model: nn.Module, levels: int | None, n: int, seed: int, context: NDArray[np.floating] | None = None
) -> NDArray[np.floating]:
    """n samples (n, features) in the units of the data, the same for a seed.

    levels: where the rows of a continuous model are whole levels with noise: what lies beyond is brought back to them.
    context: (F,) for all of them or (n, F) for each its own.
    """
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(seed)
    if context is None:
        samples = model.sample(n, generator=generator)  # type: ignore[operator]
    else:
        given = torch.from_numpy(context).to(like).expand(n, -1)
        samples = model.sample(1, given, generator=generator)[0]  # type: ignore[operator]
    return (samples if levels is None else samples.clamp(0, levels)).cpu().numpy()


def noisy_levels(data: Dataset) -> int | None:
    """The levels of a data set whose rows get noise; None for others."""
    return data.levels if data.noise else None


def picture(
    name: str, model: nn.Module, data: Dataset, records: Sequence[Epoch], nats_per_dim: Mapping[str, float], seed: int
) -> Figure:
    """Held-out rows beside samples, one for each of their contexts, and the learning curve beside simple densities."""
    n = IMAGES if data.image_shape else POINTS
    context = next(data.held_out("test")).context
    context = None if context is None else context[:n]
    samples = draw_samples(model, noisy_levels(data), n if context is None else len(context), seed, context)
    simple = {key: nats for key, nats in nats_per_dim.items() if key != name}
    title = f"{name} on {data.name}: {nats_per_dim[name]:.3f} nats per dimension held out"

    @torch.no_grad()
    def log_prob(points: Rows) -> NDArray[np.floating]:
        like = next(model.parameters())
        return model.log_prob(torch.from_numpy(points).to(like)).cpu().numpy()  # type: ignore[operator]

    return summary_figure(data, samples, log_prob, records, simple, title)
