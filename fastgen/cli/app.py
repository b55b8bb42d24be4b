"""The commands, and what becomes of their errors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__
from ..data import DataError
from ..io import FileError
from ..train import NonFiniteLoss
from .bench import PASSED_ON, bench
from .demo import demo
from .describe import data
from .doctor import doctor
from .errors import Stopped, UserError
from .estimate import estimate
from .evaluate import evaluate
from .plot import plot
from .sample import sample
from .train import train

app = typer.Typer(name="fastgen", add_completion=False, rich_markup_mode=None)
app.command("train")(train)
app.command("sample")(sample)
app.command("eval")(evaluate)
app.command("plot")(plot)
app.add_typer(data, name="data")
app.command("bench", context_settings=PASSED_ON, add_help_option=False)(bench)
app.command("doctor")(doctor)
app.command("demo")(demo)
app.command("estimate")(estimate)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastgen {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fast exact kernels for normalizing flows and VAEs in PyTorch."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    2 for an error of the user's, 1 for a training run whose loss is not finite, 130 and 143 for one stopped by Ctrl-C and
    SIGTERM.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = app(args=arguments, prog_name="fastgen", standalone_mode=False)
    except (UserError, DataError, FileError) as error:
        return _fail(2, str(error))
    except NonFiniteLoss as error:
        return _fail(1, str(error))
    except Stopped as stop:
        return _fail(128 + stop.signal, str(stop))
    except (KeyboardInterrupt, typer.Abort):
        return _fail(130, "interrupted")
    except Exception as error:
        # Bad usage. Versions of typer differ in where its class lives: some ship click, some import it.
        if not hasattr(error, "format_message"):
            raise
        return _fail(2, error.format_message())
    return code if isinstance(code, int) else 0


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fastgen: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(code: int, message: str) -> int:
    print(f"fastgen: {' '.join(message.split())}", file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the command `fastgen`."""
    sys.exit(run(arguments))
