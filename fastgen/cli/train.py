"""`fastgen train`: a model on a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..train.models import MODELS
from . import options
from .experiment import Settings, run_experiment
from .recipes import recipe
from .results import RunFolder, file_table, likelihood_table


def _model(value: str) -> str:
    if value not in MODELS:
        raise typer.BadParameter(f"expected one of {', '.join(MODELS)}, found {value!r}")
    return value


_OWN = "  [default: what suits the data set]"


def train(
    model: Annotated[str, typer.Argument(callback=_model, help=f"Model: {', '.join(MODELS)}.", show_default=False)],
    data: options.Data = "digits",
    hidden: Annotated[str | None, typer.Option(help=f"Widths of the hidden layers, such as 512,512.{_OWN}")] = None,
    transforms: Annotated[
        int | None, typer.Option(callback=options.at_least(1), help=f"Autoregressive transforms.{_OWN}")
    ] = None,
    epochs: Annotated[int | None, typer.Option(callback=options.at_least(1), help=f"Epochs at most.{_OWN}")] = None,
    batch_size: Annotated[int | None, typer.Option(callback=options.at_least(1), help=f"Rows per step.{_OWN}")] = None,
    lr: Annotated[float | None, typer.Option(callback=options.above_zero, help=f"Learning rate of Adam.{_OWN}")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(callback=options.at_least(0), help=f"Decoupled weight decay.{_OWN}")
    ] = None,
    clip: Annotated[
        float | None, typer.Option(callback=options.above_zero, help=f"Largest norm of the gradient.{_OWN}")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            callback=options.at_least(1), help=f"Epochs without a better validation likelihood before stopping.{_OWN}"
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(callback=options.above_zero, help="No epoch starts later.")] = None,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: runs/MODEL-DATA]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in that folder.")] = False,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Train MODEL on a data set: checkpoint of the best weights, CSV log and picture go to a folder."""
    widths = None if hidden is None else options.widths(hidden)
    chosen: dict[str, Any] = {
        "hidden": widths,
        "transforms": transforms,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "weight_decay": weight_decay,
        "clip_norm": clip,
        "patience": patience,
    }
    settings = Settings(
        model=model,
        data=data,
        recipe=replace(recipe(data), **{name: value for name, value in chosen.items() if value is not None}),
        seconds=seconds,
        seed=seed,
        device=options.device_of(device),
    )
    files = RunFolder(out or Path("runs") / f"{model}-{data}")
    files.claim(overwrite)
    console = Console()
    outcome = run_experiment(settings, files, console)
    console.print(likelihood_table(outcome.data, outcome.likelihoods))
    console.print(file_table(files))
