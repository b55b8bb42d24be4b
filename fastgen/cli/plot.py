"""`fastgen plot`: the picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..train import RunFolder, read_log
from ..train.plots import save_figure
from . import options
from .distill import distillation_picture
from .draw import picture
from .errors import UserError
from .restore import restore
from .results import held_out, nats_per_dim


def plot(
    run: Annotated[Path, typer.Argument(help="The folder of a run, finished or not.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(callback=options.suffix(".png"), help="A PNG file.  [default: summary.png in that folder]")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Draw what a run has come to: held-out data beside samples, and the learning curves."""
    files = RunFolder(run)
    records = read_log(files.log)
    if not records:
        raise UserError(f"{files.log}: expected a finished epoch, found none")
    place = options.device_of(device)
    trained = restore(files.checkpoint, place)
    data = trained.data()
    out = out or files.picture
    teacher = trained.description.get("teacher")
    if teacher is not None:
        figure = distillation_picture(trained.model, restore(Path(teacher["run"]), place), data, records, seed)
    else:
        nats = nats_per_dim(data, held_out(trained.name, trained.model, data))
        figure = picture(trained.name, trained.model, data, records, nats, seed)
    save_figure(out, figure)
    typer.echo(f"picture: {out}")
