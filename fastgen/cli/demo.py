"""`fastgen demo`: a flow trained on real data, what it is worth and how fast it was, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from rich.console import Console

from ..data import SHIPPED
from ..flows import Flow
from ..train import RunFolder
from . import options
from .config import build_config
from .experiment import prepare, run_experiment
from .recipes import DATA, recipe
from .results import file_table, likelihood_table
from .settings import Setting
from .speed import measure, speed_table

# No epoch starts later, so that a slow machine is done in time too.
TRAINING_SECONDS = 60.0
TIMING_SECONDS = 4.0


def demo(
    data: Annotated[str, typer.Option(callback=options.one_of(SHIPPED), help=f"Data set: {', '.join(SHIPPED)}.")] = DATA,
    out: Annotated[Path, typer.Option(help="Folder for the results; what it holds of an earlier run is replaced.")] = Path(
        "runs/demo"
    ),
    seconds: Annotated[float, typer.Option(callback=options.above_zero, help="Training time at most.")] = TRAINING_SECONDS,
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Train a MAF on real data; print its held-out likelihood beside baselines, and the speed-up of the fused path."""
    given = {"training.seconds": seconds, "seed": seed, "threads": threads, "device": device}
    settings = {key: Setting(value, "an option") for key, value in given.items()}
    experiment = prepare(build_config({**recipe("maf", data), **settings}))
    run, console = RunFolder(out), Console()
    with run.locked():
        run.claim(overwrite=True)
        likelihoods = run_experiment(experiment, run, console)
    console.print("measuring the fused path against plain PyTorch ...", highlight=False)
    batch = next(experiment.data.held_out("test")).rows[: experiment.config.training.batch_size]
    times = measure(cast(Flow, experiment.model), torch.from_numpy(batch).to(experiment.config.device), seconds=TIMING_SECONDS)
    console.print(likelihood_table(experiment.data, likelihoods))
    console.print(speed_table(times, len(batch)))
    console.print(file_table(run))
