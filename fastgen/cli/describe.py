"""`fastgen data describe`: what a run would train on."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .checks import checked
from .keys import data_keys
from .settings import Setting, parse
from .source import data_config

data = typer.Typer(help="Look at data before training on it.", rich_markup_mode=None)


@data.callback()
def _group() -> None:
    """Look at data before training on it."""


@data.command("describe")
def describe(
    source: Annotated[str, typer.Argument(metavar="FILE", help=options.DATA_HELP, show_default=False)],
    data_dir: options.DataDir = None,
    seed: options.Seed = 0,
    assign: options.Assign = None,
) -> None:
    """Print what a run would train on: rows, features, levels, ranges, missing values and constant columns."""
    settings = {"data.source": Setting(source, "FILE"), **parse(assign or (), data_keys())}
    if data_dir is not None:
        settings["data.dir"] = Setting(str(data_dir), "--data-dir")
    for line in data_config(checked(settings, data_keys()), seed).describe().lines():
        typer.echo(line)
