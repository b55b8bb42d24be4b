"""A training run from config to files: what `fastgen train` and `fastgen demo` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

from .. import __version__, io
from ..data import Dataset
from ..data.dataset import PARTS
from ..train import CsvLog, Epoch, Observer, RunFolder, progress, train
from ..train.checkpoint import Checkpointer
from ..train.models import build, fit_for
from ..train.plots import save_figure
from ..train.trainable import expect_trainable
from . import options
from .config import RunConfig
from .draw import noisy_levels, picture
from .errors import UserError
from .results import Likelihoods, held_out, likelihood_table, nats_per_dim, result_json


@dataclass(frozen=True)
class Experiment:
    """A run that can begin: the config with its threads and device, the data and a model with its first weights."""

    config: RunConfig
    data: Dataset
    model: nn.Module

    @property
    def name(self) -> str:
        return self.config.model.upper()

    def to_json(self) -> dict[str, Any]:
        """What run.json says: a config, and the version it was run with."""
        return {"fastgen": __version__, "torch": torch.__version__, **self.config.to_json()}

    def description(self) -> dict[str, Any]:
        """What a checkpoint says of where it comes from."""
        model = {"name": self.config.model, "config": self.model.config}
        return {**self.to_json(), "model": model, "noisy_levels": noisy_levels(self.data)}

    @property
    def size(self) -> str:
        return f"{self.name} ({sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters)"

    @property
    def place(self) -> str:
        return f"on {self.config.device}, {self.config.threads} threads"

    def header(self) -> str:
        rows = ", ".join(f"{len(getattr(self.data, part))} {part}" for part in PARTS)
        features = f"{self.data.features} features"
        if self.data.context_features:
            features += f" and {self.data.context_features} of context"
        return f"{self.size} on {self.data.name} ({rows} rows of {features}), {self.place}"

    def train(self, observers: Sequence[Observer], run: RunFolder, resume: bool) -> list[Epoch]:
        """Leaves the best weights in the model."""
        return train(self.model, self.data, self.config.training, observers, run=run, resume=resume)

    def likelihoods(self) -> Likelihoods:
        """Of held-out rows, under the trained model and what it is compared with."""
        return held_out(self.name, self.model, self.data)

    def picture(self, records: Sequence[Epoch], likelihoods: Likelihoods) -> Figure:
        nats = nats_per_dim(self.data, likelihoods)
        return picture(self.name, self.model, self.data, records, nats, self.config.seed)

    def result(self, likelihoods: Likelihoods) -> dict[str, Any]:
        """What result.json says beside the description."""
        return result_json(self.data, likelihoods)

    def tables(self, likelihoods: Likelihoods) -> list[Table]:
        """What is printed when the run is over."""
        return [likelihood_table(self.data, likelihoods)]


def prepare(config: RunConfig) -> Experiment:
    """Reads the data and makes the model; writes nothing. Raises UserError and DataError, naming what is wrong."""
    config = placed(config)
    data = config.data.load()
    torch.manual_seed(config.seed)
    model = _built(config, data).to(config.device)
    try:
        experiment = Experiment(config, fit_for(model, data), model)
    except ValueError as error:
        raise UserError(f"{config.model}: {error}") from error
    expect_run(experiment.model, experiment.data, config)
    return experiment


def expect_run(model: nn.Module, data: Dataset, config: RunConfig) -> None:
    """Raises UserError where `model` could not be trained on `data`."""
    try:
        expect_trainable(model, data, config.training)
    except (ValueError, TypeError) as error:
        raise UserError(f"{config.model}: {error}") from error


def placed(config: RunConfig) -> RunConfig:
    """The config with its threads, which are set, and its device. Raises UserError where there is no such device."""
    device = options.device_of(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return replace(config, device=str(device), threads=torch.get_num_threads())


def _built(config: RunConfig, data: Dataset) -> nn.Module:
    try:
        return build(config.model, data, **config.options)
    # What options that no signature tells apart raise, and widths that no memory holds.
    except (ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise UserError(f"{config.model}: {error or 'not enough memory'}") from error


def run_experiment(
    experiment: Experiment, run: RunFolder, console: Console, *, resume: bool = False, observers: Sequence[Observer] = ()
) -> Likelihoods:
    """Trains the model, and writes the files of the run into its folder, which is locked; the likelihood of held-out rows."""
    console.print(experiment.header(), highlight=False, soft_wrap=True)
    run.write_config(experiment.to_json())
    watching = [
        CsvLog(run.log),
        Checkpointer(run.checkpoint, experiment.description()),
        progress(console, experiment.config.training),
        *observers,
    ]
    records = experiment.train(watching, run, resume)
    likelihoods = experiment.likelihoods()
    save_figure(run.picture, experiment.picture(records, likelihoods))
    io.write_json(run.result, {**experiment.description(), **experiment.result(likelihoods)})
    return likelihoods
