"""What `fastgen plot` draws of a VAE: reconstructions, samples, the latent space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data import DataError, Dataset
from ..models import VAE
from ..train.batches import place
from ..train.flow_plots import reconstruction_figure
from ..train.latent_plots import GRID, latent_figure
from ..train.plots import rows_figure
from .draw import IMAGES, POINTS, draw_samples, noisy_levels
from .errors import UserError
from .restore import Trained
from .settings import Setting
from .source import data_of

# Held-out rows that are drawn.
ROWS = 4000


def reconstruction(trained: Trained, data: Dataset) -> tuple[Figure, str]:
    """Held-out rows beside the mean that the decoder gives for their latent vectors; and what is printed of it."""
    model = vae(trained, "reconstruction")
    part = next(data.held_out("test"))
    part = part.take(np.arange(min(ROWS, len(part))))
    rebuilt = model.reconstruct(place(part, next(model.parameters())).x).cpu().numpy()
    error = float(np.sqrt(((rebuilt - part.rows) ** 2).mean()))
    name = "mean of p(x | z)"
    figure = reconstruction_figure(data, part.rows, rebuilt, f"{trained.name} on {data.name}", name)
    return figure, f"{name} over {len(part)} held-out rows: root mean square error {error:.3g}"


def samples(trained: Trained, data: Dataset, seed: int) -> tuple[Figure, str]:
    """Samples; of a VAE the mean that its decoder gives for each."""
    n = IMAGES if data.image_shape else POINTS
    mean: dict[str, Any] = {"mean": True} if isinstance(trained.model, VAE) else {}
    if data.context_features:
        raise UserError(f"--kind samples: expected a model without a context, found {trained.name}; see fastgen sample")
    rows = draw_samples(trained.model, noisy_levels(data), n, seed, None, **mean)
    what = "means of p(x | z), z of the prior" if mean else "samples"
    return rows_figure(data, rows, f"{trained.name} on {data.name}: {what}"), f"{n} {what}"


def latent(trained: Trained, data: Dataset) -> tuple[Figure, str]:
    """Held-out rows in a two-dimensional latent space, coloured by their class where the data set knows it."""
    model = vae(trained, "latent")
    if model.latent_features != 2:
        raise UserError(f"--kind latent: expected latent_features 2, found {model.latent_features}")
    part = next(data.held_out("test"))
    part = part.take(np.arange(min(ROWS, len(part))))
    like = next(model.parameters())
    with torch.no_grad():
        z = model.latent(place(part, like).x).cpu().numpy()
        # The middles of equal shares of the prior, the first feature to the right and the second upwards.
        shares = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
        y, x = torch.meshgrid(torch.special.ndtri(shares).flip(0), torch.special.ndtri(shares), indexing="ij")
        decoded = model.decode(torch.stack([x, y], -1).view(-1, 2).to(like)).cpu().numpy() if data.image_shape else None
    labels = _labels(trained)
    title = f"{trained.name} on {data.name}: the latent space"
    coloured = "" if labels is None else f", {len(np.unique(labels))} classes"
    return latent_figure(data, z, None if labels is None else labels[: len(z)], decoded, title), f"{len(z)} rows{coloured}"


def vae(trained: Trained, kind: str) -> VAE:
    """The model. Raises UserError for one that is no VAE."""
    if not isinstance(trained.model, VAE):
        raise UserError(f"--kind {kind}: expected a VAE, found {trained.name}")
    return trained.model


def _labels(trained: Trained) -> NDArray[np.int64] | None:
    """The classes of the first test rows, where the data set that it was trained on by name knows them."""
    try:
        labelled = data_of(trained.description, str(trained.path), {"data.labels": Setting(True, "--kind latent")}).load()
    except (DataError, UserError):
        return None
    context = next(labelled.held_out("test")).context
    return None if context is None else context[:, 0].astype(np.int64)
