"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..data import DATASETS
from ..data.dataset import PARTS


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


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """The check of a word that has to be among the known ones."""

    def check(value: str) -> str:
        if value not in known:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, found {value!r}")
        return value

    return check


def suffix(*known: str) -> Callable[[Path | None], Path | None]:
    """The check of a file's name."""

    def check(value: Path | None) -> Path | None:
        if value is not None and value.suffix not in known:
            raise typer.BadParameter(f"expected a file that ends in {' or '.join(known)}, found {str(value)!r}")
        return value

    return check


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


DATA_HELP = f"A file (npy, npz, csv, IDX, parquet) or one of {', '.join(DATASETS)}."

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a checkpoint of one.", show_default=False)]
OtherData = Annotated[str | None, typer.Option("--data", help=f"{DATA_HELP}  [default: what it was trained on]")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the files of a data set known by name: mnist.", show_default=False),
]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of the config, such as learning_rate=1e-4; as often as needed."),
]
Part = Annotated[str, typer.Option(callback=one_of(PARTS), help=f"{', '.join(PARTS)}.")]
Device = Annotated[str | None, typer.Option(help="Device, such as cpu or cuda.  [default: cuda if there is one, else cpu]")]
Threads = Annotated[int | None, typer.Option(callback=set_threads, help="CPU threads.  [default: all cores]")]
Seed = Annotated[int, typer.Option(callback=at_least(0), help="Seed of everything random.")]
