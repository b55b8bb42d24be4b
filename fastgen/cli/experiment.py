"""A training run from data set to files: what `fastgen train` and `fastgen demo` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from .. import __version__, io
from ..data import Dataset, load
from ..flows import Flow
from ..train import CsvLog, Epoch, TrainConfig, progress, train
from ..train.checkpoint import Checkpointer
from ..train.models import build
from ..train.plots import Rows, save_figure, summary_figure
from .recipes import Recipe
from .results import RunFolder, draw_samples, held_out

# Samples in the picture.
IMAGES, POINTS = 64, 4000


@dataclass(frozen=True)
class Settings:
    """What to train on what, and how."""

    model: str
    data: str
    recipe: Recipe
    seconds: float | None
    seed: int
    device: torch.device

    @property
    def training(self) -> TrainConfig:
        recipe = self.recipe
        return TrainConfig(
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            clip_norm=recipe.clip_norm,
            patience=recipe.patience,
            seconds=self.seconds,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Outcome:
    """A trained model and the mean log-likelihood of the held-out rows in nats per dimension, the baselines' too."""

    model: Flow
    data: Dataset
    likelihoods: dict[str, float]


def run_experiment(settings: Settings, files: RunFolder, console: Console) -> Outcome:
    """Trains, evaluates, and writes checkpoint, log, picture and result into the folder."""
    torch.manual_seed(settings.seed)
    data = load(settings.data, seed=settings.seed)
    recipe = settings.recipe
    model = build(settings.model, data, hidden_features=recipe.hidden, transforms=recipe.transforms).to(settings.device)
    console.print(_header(settings, data, model), highlight=False)
    description = {
        "fastgen": __version__,
        "model": {"name": settings.model, "config": model.config},
        "data": {"name": data.name, "seed": data.seed},
        "training": asdict(settings.training),
    }
    observers = [
        CsvLog(files.log),
        Checkpointer(files.checkpoint, description),
        progress(console, len(data.train), settings.training),
    ]
    records = train(model, data, settings.training, observers)
    likelihoods = held_out(settings.model.upper(), model, data)
    save_figure(files.picture, _picture(settings.model.upper(), model, data, records, likelihoods))
    bits = {name: data.bits_per_dim(nats) for name, nats in likelihoods.items()}
    io.write_json(files.result, {**description, "nats_per_dim": likelihoods, "bits_per_dim": bits})
    return Outcome(model, data, likelihoods)


def _header(settings: Settings, data: Dataset, model: Flow) -> str:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    widths = ",".join(map(str, settings.recipe.hidden))
    network = f"{settings.recipe.transforms} transforms, hidden {widths}, {parameters:.2f} M parameters"
    rows = (
        f"{len(data.train)} training, {len(data.valid)} validation and {len(data.test)} test rows of {data.features} features"
    )
    return f"{settings.model.upper()} ({network}) on {data.name} ({rows}), on {settings.device}"


def _picture(name: str, model: Flow, data: Dataset, records: Sequence[Epoch], likelihoods: Mapping[str, float]) -> Figure:
    first = next(model.parameters())

    def log_prob(rows: Rows) -> NDArray[np.floating]:
        with torch.no_grad():
            return model.log_prob(torch.from_numpy(rows).to(first)).cpu().numpy()

    samples = draw_samples(model, data, IMAGES if data.image_shape else POINTS, data.seed)
    baselines = {key: nats for key, nats in likelihoods.items() if key != name}
    title = f"{name} on {data.name}: {likelihoods[name]:.3f} nats per dimension held out"
    return summary_figure(data, samples, log_prob, records, baselines, title)
