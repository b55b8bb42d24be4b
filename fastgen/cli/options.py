"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..data import DATASETS


def dataset_name(value: str | None) -> str | None:
    if value is not None and value not in DATASETS:
        raise typer.BadParameter(f"expected one of {', '.join(DATASETS)}, found {value!r}")
    return value


def above_zero(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise typer.BadParameter(f"expected a number above 0, found {value}")
    return value


def at_least(least: int) -> Callable[[float | None], float | None]:
    """The check of a number that may not be below `least`."""

    def check(value: float | None) -> float | None:
        if value is not None and not value >= least:
            raise typer.BadParameter(f"expected at least {least}, found {value}")
        return value

    return check


def widths(value: str) -> tuple[int, ...]:
    """Layer widths out of a comma-separated list."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(
            f"expected layer widths of at least 1, such as 512,512, found {value!r}", param_hint="--hidden"
        )
    return tuple(int(part) for part in parts)


def device_of(value: str | None) -> torch.device:
    """The device of that name; without one the first CUDA device, else the CPU."""
    if value is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(value)
        torch.zeros(1, device=device).cpu()
    # What a name torch does not know, a build without that device, and a device that is not there raise.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        message = f"expected a device of this machine, such as cpu or cuda, found {value!r}: {reason}"
        raise typer.BadParameter(message, param_hint="--device") from error
    return device


def set_threads(value: int | None) -> int | None:
    at_least(1)(value)
    if value is not None:
        torch.set_num_threads(value)
    return value


Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint written by `fastgen train`.", show_default=False)]
Data = Annotated[str, typer.Option(callback=dataset_name, help=f"Data set: {', '.join(DATASETS)}.")]
Device = Annotated[str | None, typer.Option(help="Device, such as cpu or cuda.  [default: cuda if there is one, else cpu]")]
Threads = Annotated[int | None, typer.Option(callback=set_threads, help="CPU threads.  [default: all cores]")]
Seed = Annotated[int, typer.Option(callback=at_least(0), help="Seed of everything random.")]
