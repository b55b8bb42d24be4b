"""`fastgen sample`: draws from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ..flows import Flow
from ..train.plots import rows_figure, save_figure
from . import options
from .conditions import read_context
from .draw import draw_samples
from .errors import UserError
from .output import write_array
from .restore import restore

SAMPLES = 64


def sample(
    run: options.Run,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--n",
            callback=options.at_least(1),
            help=f"Number of samples.  [default: {SAMPLES}, or the rows of --context]",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            callback=options.suffix(".npy", ".csv", ".png"),
            help="Numbers as .npy or .csv, (n, features); or a picture as .png.",
        ),
    ] = Path("samples.npy"),
    context: Annotated[
        str | None,
        typer.Option(help="What to condition on: numbers such as 1.0,0.5, or a .npy or .csv file with rows of them."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=options.at_least(0),
            help="Of a flow: what its noise is multiplied by; below 1 samples are likelier and less varied.  [default: 1]",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Draw samples from the model of RUN, in the units of its data."""
    trained = restore(run, options.device_of(device))
    conditions = read_context(context, trained.context_features)
    n = _number(n, conditions)
    cooled = {} if temperature is None else {"temperature": temperature}
    if cooled and not isinstance(trained.model, Flow):
        raise UserError(f"--temperature: expected a flow, found {trained.name}")
    try:
        samples = draw_samples(trained.model, trained.noisy_levels, n, seed, conditions, **cooled)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    except MemoryError as error:
        raise UserError(f"-n: expected samples that fit in memory, found {n}") from error
    if out.suffix == ".png":
        data = trained.data()
        save_figure(out, rows_figure(data, samples, f"{n} samples of {trained.name} on {data.name}"))
    else:
        write_array(out, samples)
    typer.echo(f"{n} samples: {out}")


def _number(n: int | None, context: NDArray[np.floating] | None) -> int:
    if context is None or context.ndim == 1:
        return n or SAMPLES
    if n not in (None, len(context)):
        raise UserError(f"-n: expected {len(context)}, the rows of --context, found {n}")
    return len(context)
