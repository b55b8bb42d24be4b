"""A training run from config to files: what `fastgen train` and `fastgen demo` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from torch import nn

from .. import __version__, io
from ..data import Dataset
from ..data.dataset import PARTS
from ..train import CsvLog, Observer, RunFolder, progress, train
from ..train.checkpoint import Checkpointer
from ..train.models import build, fit_for
from ..train.plots import save_figure
from ..train.trainable import expect_trainable
from . import options
from .config import RunConfig
from .draw import noisy_levels, picture
from .errors import UserError
from .results import Likelihoods, held_out, nats_per_dim, result_json


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

    def header(self) -> str:
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        rows = ", ".join(f"{len(getattr(self.data, part))} {part}" for part in PARTS)
        features = f"{self.data.features} features"
        if self.data.context_features:
            features += f" and {self.data.context_features} of context"
        place = f"on {self.config.device}, {self.config.threads} threads"
        return f"{self.name} ({parameters:.2f} M parameters) on {self.data.name} ({rows} rows of {features}), {place}"


def prepare(config: RunConfig) -> Experiment:
    """Reads the data and makes the model; writes nothing. Raises UserError and DataError, naming what is wrong."""
    device = options.device_of(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    config = replace(config, device=str(device), threads=torch.get_num_threads())
    data = config.data.load()
    torch.manual_seed(config.seed)
    model = _built(config, data).to(device)
    experiment = Experiment(config, fit_for(model, data), model)
    try:
        expect_trainable(model, experiment.data, config.training)
    except (ValueError, TypeError) as error:
        raise UserError(f"{config.model}: {error}") from error
    return experiment


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
    config, data, model = experiment.config, experiment.data, experiment.model
    console.print(experiment.header(), highlight=False, soft_wrap=True)
    run.write_config(experiment.to_json())
    watching = [
        CsvLog(run.log),
        Checkpointer(run.checkpoint, experiment.description()),
        progress(console, config.training),
        *observers,
    ]
    records = train(model, data, config.training, watching, run=run, resume=resume)
    likelihoods = held_out(experiment.name, model, data)
    nats = nats_per_dim(data, likelihoods)
    save_figure(run.picture, picture(experiment.name, model, data, records, nats, config.seed))
    io.write_json(run.result, {**experiment.description(), **result_json(data, likelihoods)})
    return likelihoods
