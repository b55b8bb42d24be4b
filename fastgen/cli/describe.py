"""`fastgen data describe`: what a run would train on."""

from __future__ import annotations

import typer

data = typer.Typer(help="Look at data before training on it.")


@data.command("describe")
def describe(source: str) -> None:
    """Print."""
