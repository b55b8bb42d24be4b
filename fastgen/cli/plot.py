"""`fastgen plot`: the picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure

from ..data import Dataset
from ..models import VAE
from ..train import RunFolder, read_log
from ..train.plots import save_figure
from ..train.run import PICTURES
from . import autoencoder, options
from .distill import distillation_picture
from .draw import picture
from .errors import UserError
from .invertible import interpolation, reconstruction
from .restore import Trained, restore
from .results import held_out, nats_per_dim


def plot(
    run: Annotated[Path, typer.Argument(help="The folder of a run, finished or not.", show_default=False)],
    kind: Annotated[str, typer.Option(callback=options.one_of(PICTURES), help=f"{', '.join(PICTURES)}.")] = "summary",
    out: Annotated[
        Path | None, typer.Option(callback=options.suffix(".png"), help="A PNG file.  [default: KIND.png in that folder]")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Draw what a run has come to: held-out data beside samples, and the learning curves.

    Of a flow also the way between held-out rows through its noise, or whether its inverse gives them back. Of a VAE their
    reconstruction, and a latent space of two dimensions.
    """
    files = RunFolder(run)
    place = options.device_of(device)
    if kind == "summary":
        figure, found = _summary(files, seed, place), None
    else:
        trained = restore(files.checkpoint, place)
        figure, found = _picture(kind, trained, trained.data(), seed)
    out = out or files.pictures[kind]
    save_figure(out, figure)
    if found:
        typer.echo(found)
    typer.echo(f"picture: {out}")


def _picture(kind: str, trained: Trained, data: Dataset, seed: int) -> tuple[Figure, str]:
    """A picture other than the summary, and what is printed of it."""
    if kind == "samples":
        return autoencoder.samples(trained, data, seed)
    if kind == "latent":
        return autoencoder.latent(trained, data)
    if kind == "reconstruction" and isinstance(trained.model, VAE):
        return autoencoder.reconstruction(trained, data)
    return {"interpolation": interpolation, "reconstruction": reconstruction}[kind](trained, data)


def _summary(files: RunFolder, seed: int, place: torch.device) -> Figure:
    records = read_log(files.log)
    if not records:
        raise UserError(f"{files.log}: expected a finished epoch, found none")
    trained = restore(files.checkpoint, place)
    data = trained.data()
    teacher = trained.description.get("teacher")
    if teacher is not None:
        return distillation_picture(trained.model, restore(Path(teacher["run"]), place), data, records, seed)
    nats = nats_per_dim(data, held_out(trained.name, trained.model, data))
    return picture(trained.name, trained.model, data, records, nats, seed)
