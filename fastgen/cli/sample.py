"""`fastgen sample`: draws from a checkpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..io import write_atomically
from ..train.plots import rows_figure, save_figure
from . import options
from .errors import user_errors
from .restore import restore
from .results import draw_samples


def _known_suffix(value: Path) -> Path:
    if value.suffix not in (".npy", ".png"):
        raise typer.BadParameter(f"expected a file that ends in .npy or .png, found {str(value)!r}")
    return value


def sample(
    checkpoint: options.Checkpoint,
    n: Annotated[int, typer.Option("-n", callback=options.at_least(1), help="Number of samples.")] = 64,
    out: Annotated[
        Path, typer.Option(callback=_known_suffix, help="Numbers as .npy, float32 (n, features); or a picture as .png.")
    ] = Path("samples.npy"),
    seed: options.Seed = 0,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Draw samples from CHECKPOINT, in the units of its data set."""
    with user_errors():
        model, data, name = restore(checkpoint, options.device_of(device))
        samples = draw_samples(model, data, n, seed)
        if out.suffix == ".png":
            save_figure(out, rows_figure(data, samples, f"{n} samples of {name} on {data.name}"))
        else:
            content = io.BytesIO()
            np.save(content, samples, allow_pickle=False)
            write_atomically(out, content.getvalue())
    typer.echo(f"{n} samples: {out}")
