"""`fastgen bench`: how fast everything is here, against what. `python -m fastgen.bench` is the same without typer."""

from __future__ import annotations

import typer

from .errors import UserError

# Every word goes through as it is: what the command takes is said in one place, fastgen.bench.command.
PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def bench(context: typer.Context) -> None:
    """Measure operations and models against plain PyTorch, its compiler and other libraries."""
    from ..bench.command import run  # type: ignore[import-not-found]
    from ..bench.registry import UsageError  # type: ignore[import-not-found]

    try:
        code = run(context.args)
    except UsageError as error:
        raise UserError(str(error)) from error
    raise typer.Exit(code)
