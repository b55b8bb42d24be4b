"""What a trained model is worth, and the files it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from rich.table import Table

from ..data import Dataset
from ..flows import Flow
from ..train import fit_gaussians, mean_log_prob
from ..train.models import samples_in_range
from ..train.plots import Rows
from .errors import UserError


class RunFolder:
    """The files of a training run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint.safetensors"
        self.log = folder / "log.csv"
        self.picture = folder / "summary.png"
        self.result = folder / "result.json"

    def claim(self, overwrite: bool) -> None:
        """Makes the folder ready for a run. Raises UserError where it cannot, or holds one already and not `overwrite`."""
        files = (self.checkpoint, self.log, self.picture, self.result)
        try:
            taken = next((file for file in files if file.exists()), None)
            if taken and not overwrite:
                raise UserError(f"--out: expected a folder without results (or --overwrite), found {taken}")
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"--out: expected a folder to write to, found {self.folder}: {error.strerror}") from error


def held_out(name: str, model: Flow, data: Dataset) -> dict[str, float]:
    """Mean log-likelihood of the test rows in nats per dimension: that of `model`, then of Gaussians fitted to train."""
    first = next(model.parameters())
    nats = {name: mean_log_prob(model, torch.from_numpy(data.test).to(first))}
    for baseline, gaussian in fit_gaussians(data).items():
        nats[baseline] = float(gaussian.log_prob(data.test).mean())
    return {key: value / data.features for key, value in nats.items()}


def draw_samples(model: Flow, data: Dataset, n: int, seed: int) -> Rows:
    """n samples (n, features) in the units of the data set, the same for a seed."""
    device = next(model.parameters()).device
    samples = model.sample(n, generator=torch.Generator(device).manual_seed(seed))
    return samples_in_range(data, samples).float().cpu().numpy()


def likelihood_table(data: Dataset, likelihoods: Mapping[str, float]) -> Table:
    """The likelihoods as a table, with bits per dimension for images."""
    images = data.grey_level is not None
    table = Table(title=f"held-out log-likelihood, {len(data.test)} test rows of {data.name}", title_justify="left")
    table.add_column("model")
    for column in ("nats/dim", "nats/row", *(["bits/dim"] if images else [])):
        table.add_column(column, justify="right")
    for name, nats in likelihoods.items():
        bits = [f"{data.bits_per_dim(nats):.4f}"] if images else []
        table.add_row(name, f"{nats:.4f}", f"{nats * data.features:.2f}", *bits)
    return table


def file_table(files: RunFolder) -> Table:
    """The paths of a run's files."""
    table = Table(title="files", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in ("checkpoint", "picture", "log", "result"):
        table.add_row(name, str(getattr(files, name)))
    return table
