"""`fastgen eval`: the likelihood of rows under a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import options
from .output import write_array
from .restore import restore
from .results import SAMPLES, held_out, likelihood_table


def evaluate(
    run: options.Run,
    data: options.OtherData = None,
    part: options.Part = "test",
    out: Annotated[
        Path | None,
        typer.Option(callback=options.suffix(".npy", ".csv"), help="Also write the log-likelihood of every row, in nats."),
    ] = None,
    samples: Annotated[
        int, typer.Option(callback=options.at_least(1), help="Of a VAE: how many importance weights for each row.")
    ] = SAMPLES,
    assign: options.Assign = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Print the log-likelihood that the model of RUN gives to held-out rows, beside simple densities.

    Of a VAE its bound, and an estimate of the log-likelihood by importance sampling.
    """
    trained = restore(run, options.device_of(device))
    chosen = trained.data(data, assign or ())
    likelihoods = held_out(trained.name, trained.model, chosen, part, samples)
    if out is not None:
        write_array(out, likelihoods[trained.name].per_row)
    console = Console()
    console.print(likelihood_table(chosen, likelihoods, part))
    if out is not None:
        console.print(f"every row: {out}", highlight=False, soft_wrap=True)
