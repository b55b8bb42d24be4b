"""`fastgen demo`: a flow trained on real data, what it is worth and how fast it was, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from . import options
from .experiment import Settings, run_experiment
from .recipes import recipe
from .results import RunFolder, file_table, likelihood_table
from .speed import measure, speed_table

# No epoch starts later, so that a slow machine is done in time too.
TRAINING_SECONDS = 60.0
TIMING_SECONDS = 4.0


def demo(
    data: options.Data = "digits",
    out: Annotated[Path, typer.Option(help="Folder for the results; what it holds of an earlier run is replaced.")] = Path(
        "runs/demo"
    ),
    seconds: Annotated[float, typer.Option(callback=options.above_zero, help="Training time at most.")] = TRAINING_SECONDS,
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Train a MAF on real data; print its held-out likelihood beside baselines, and the speed-up of the fused path."""
    settings = Settings("maf", data, recipe(data), seconds, seed, options.device_of(device))
    files = RunFolder(out)
    files.claim(overwrite=True)
    console = Console()
    outcome = run_experiment(settings, files, console)
    rows = torch.from_numpy(outcome.data.test[: settings.recipe.batch_size]).to(settings.device)
    console.print("measuring the fused path against plain PyTorch ...", highlight=False)
    times = measure(outcome.model, rows, seconds=TIMING_SECONDS)
    console.print(likelihood_table(outcome.data, outcome.likelihoods))
    console.print(speed_table(times, len(rows)))
    console.print(file_table(files))
