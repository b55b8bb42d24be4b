"""`fastgen train`: a model on a data set."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..data import DataError
from ..io import FileError
from ..train import Interrupted, Observer, RunFolder, TensorBoard
from ..train.models import MODELS
from . import options
from .config import RunConfig, build_config, model_name
from .distill import prepare_distillation, with_data_of_teacher
from .errors import Stopped, UserError
from .experiment import prepare, run_experiment
from .keys import known
from .recipes import CONFIGS, named
from .results import file_table
from .resume import begun, continued
from .settings import Setting, Settings, parse

_WHAT = f"A TOML file; a config that comes with fastgen: {', '.join(CONFIGS)}; or a model: {', '.join(MODELS)}."


def train(
    what: Annotated[str | None, typer.Argument(metavar="CONFIG-OR-MODEL", help=_WHAT, show_default=False)] = None,
    data: Annotated[str | None, typer.Option(help=f"{options.DATA_HELP}  [default: the config's]")] = None,
    data_dir: options.DataDir = None,
    assign: options.Assign = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.  [default: the config's, or 0]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run.  [default: runs/MODEL-DATA]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or in the folder given first.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in that folder.")] = False,
    on_nonfinite: Annotated[
        str | None, typer.Option(help="When a loss is nan or inf: stop, or skip the step.  [default: stop]", show_default=False)
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="What `train distill` learns from: a run, or a checkpoint of one.", show_default=False)
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard, too.")] = False,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Train a model on data: the best weights, states to resume from, a log and a picture go to a folder."""
    given = {
        "data.source": ("--data", data),
        "data.dir": ("--data-dir", None if data_dir is None else str(data_dir)),
        "seed": ("--seed", seed),
        "training.on_nonfinite": ("--on-nonfinite", on_nonfinite),
        "device": ("--device", device),
        "threads": ("--threads", threads),
        "teacher.run": ("--teacher", None if teacher is None else str(teacher)),
    }
    shorthands = {key: Setting(value, origin) for key, (origin, value) in given.items() if value is not None}
    run, config = (_resumed if resume else _new)(what, data, out, assign or [], shorthands)
    if run.config.exists() and not (resume or overwrite):
        raise UserError(f"--out: expected a folder without a run (or --overwrite, or --resume), found {run.config}")
    experiment = prepare(config) if config.teacher is None else prepare_distillation(config)
    observers: list[Observer] = [_tensorboard(run)] if tensorboard else []
    console = Console()
    with run.locked(), _ended(run, resume):
        if not resume:
            run.claim(overwrite)
        # A run that was ended before its first state begins anew, and goes the same way.
        likelihoods = run_experiment(experiment, run, console, resume=bool(resume and run.states()), observers=observers)
    for table in experiment.tables(likelihoods):
        console.print(table)
    console.print(file_table(run))


def _new(
    what: str | None, data: str | None, out: Path | None, assign: list[str], shorthands: Settings
) -> tuple[RunFolder, RunConfig]:
    if what is None:
        raise UserError("CONFIG-OR-MODEL: expected a config or a model, found none")
    base = named(what, data)
    if "teacher.run" in shorthands and not any(key.startswith("teacher.") for key in base):
        raise UserError(f"--teacher: expected distill to train, or a config with a [teacher], found {what}")
    config = _config(base, assign, shorthands)
    return RunFolder(out or _folder(config)), config


def _resumed(
    what: str | None, data: str | None, out: Path | None, assign: list[str], shorthands: Settings
) -> tuple[RunFolder, RunConfig]:
    if what is not None and not (out is None and os.path.isdir(what)):
        run, wanted = _new(what, data, out, assign, shorthands)
        return run, continued(run, wanted)
    if out is None and what is None:
        raise UserError("--resume: expected the folder of a run, as --out DIR or first, found none")
    run = RunFolder(out or Path(what or ""))
    return run, continued(run, _config(begun(run), assign, shorthands))


def _folder(config: RunConfig) -> Path:
    model = config.model if config.teacher is None else "distill"
    return Path("runs") / f"{model}-{Path(config.data.source).stem}"


def _config(base: Settings, assign: list[str], shorthands: Settings) -> RunConfig:
    """The config of a base, but for what is assigned; a model that is assigned decides which keys there are."""
    explicit = parse((a for a in assign if a.partition("=")[0].strip() == "model.name"), ["model.name"])
    model = model_name({**base, **explicit})
    return build_config(with_data_of_teacher({**base, **parse(assign, known(model)), **shorthands}))


def _tensorboard(run: RunFolder) -> Observer:
    try:
        return TensorBoard(run.folder / "tensorboard")
    except ModuleNotFoundError as error:
        raise UserError(f"--{error}") from error


@contextmanager
def _ended(run: RunFolder, resume: bool) -> Iterator[None]:
    """Says of a run that a signal stopped how it goes on, and of one that cannot go on that it was to."""
    try:
        yield
    except Interrupted as stop:
        hint = f"go on with: fastgen train --resume --out {shlex.quote(str(run.folder))}"
        raise Stopped(stop.signal, f"{stop}; its state is saved, {hint}") from stop
    except ValueError as error:
        if not resume or isinstance(error, (FileError, DataError, UserError)):
            raise
        raise UserError(f"--resume: {error}") from error
