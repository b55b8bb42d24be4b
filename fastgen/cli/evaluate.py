"""`fastgen eval`: the held-out likelihood of a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from ..data import DATASETS, load
from . import options
from .errors import UserError, user_errors
from .restore import restore
from .results import held_out, likelihood_table


def evaluate(
    checkpoint: options.Checkpoint,
    data: Annotated[
        str | None,
        typer.Option(callback=options.dataset_name, help=f"{', '.join(DATASETS)}.  [default: what it was trained on]"),
    ] = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Print the log-likelihood CHECKPOINT gives to held-out rows, beside Gaussians fitted to the same split."""
    with user_errors():
        model, own, name = restore(checkpoint, options.device_of(device))
    # The seed of the training run, so that no row it was trained on is among the test rows.
    chosen = own if data is None else load(data, seed=own.seed)
    if chosen.features != own.features:
        raise UserError(
            f"--data: expected a set of {own.features} features, as {own.name} has, found {data} of {chosen.features}"
        )
    Console().print(likelihood_table(chosen, held_out(name, model, chosen)))
