"""Samples of a model and the picture of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import Dataset
from ..models import VAE
from ..train import Epoch
from ..train.plots import Rows, summary_figure

# Drawn at a time, so that a network's hidden units for all of them need not fit in memory.
SAMPLED_ROWS = 1 << 16
# Samples in the picture.
IMAGES, POINTS = 64, 4000


def draw_samples(
    model: nn.Module,
    levels: int | None,
    n: int,
    seed: int,
    context: NDArray[np.floating] | None = None,
    **options: Any,
) -> NDArray[np.floating]:
    """n >= 1 samples (n, features) in the units of the data, the same for a seed.

    levels: where the rows of a continuous model are whole levels with noise: what lies beyond is brought back to them.
    context: (F,) for all of them or (n, F) for each its own.
    options: those of the model's own sampling, such as a flow's temperature.

    Raises MemoryError where they do not fit in memory.
    """
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(seed)
    given = None if context is None else torch.from_numpy(context).to(like).expand(n, -1)

    def rows(start: int, stop: int) -> Tensor:
        if given is None:
            return model.sample(stop - start, generator=generator, **options)  # type: ignore[operator]
        return model.sample(1, given[start:stop], generator=generator, **options)[0]  # type: ignore[operator]

    samples: NDArray[np.floating] | None = None
    for start in range(0, n, SAMPLED_ROWS):
        found = rows(start, min(n, start + SAMPLED_ROWS)).flatten(1)
        found = found if levels is None else found.clamp(0, levels)
        samples = np.empty((n, found.shape[1]), found.cpu().numpy().dtype) if samples is None else samples
        samples[start : start + len(found)] = found.cpu().numpy()
    assert samples is not None
    return samples


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
        x = torch.from_numpy(points).to(next(model.parameters()))
        found = model.log_prob_estimate(x)[0] if isinstance(model, VAE) else model.log_prob(x)  # type: ignore[operator]
        return found.cpu().numpy()

    return summary_figure(data, samples, log_prob, records, simple, title)
