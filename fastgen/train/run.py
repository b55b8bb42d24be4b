"""The folder of a training run: its files, and who may write them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import io
from ..io import FileError

# The first is drawn of every run.
PICTURES = ("summary", "interpolation", "reconstruction", "samples", "latent")


class RunFolder:
    """The files of a training run.

    config: JSON: what the run is of and how it trains.
    checkpoint: the best weights so far, and what they belong to.
    log: CSV, a line per epoch.
    picture, result: what is left when it is over.
    pictures: PNG files by their names, PICTURES.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.config = self.folder / "run.json"
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.log = self.folder / "log.csv"
        self.pictures = {name: self.folder / f"{name}.png" for name in PICTURES}
        self.picture = self.pictures["summary"]
        self.result = self.folder / "result.json"

    def states(self) -> list[Path]:
        """The states a run can be resumed from, the newest first."""
        found = [(step, path) for path in self.folder.glob("state-*.safetensors") if (step := _step(path)) is not None]
        return [path for _, path in sorted(found, reverse=True)]

    def state(self, step: int) -> Path:
        """The file of the state after `step` steps."""
        return self.folder / f"state-{step:09d}.safetensors"

    def claim(self, overwrite: bool = False) -> None:
        """Makes the folder ready for a new run; with `overwrite` what it holds of an earlier run is removed.

        Raises FileError where it cannot be written, or holds a run already.
        """
        files = [self.config, self.checkpoint, self.log, self.result, *self.pictures.values(), *self.states()]
        try:
            taken = next((file for file in files if file.exists()), None)
            if taken and not overwrite:
                raise FileError(f"{self.folder}: expected a folder without results, found {taken.name}")
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                file.unlink(missing_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise FileError(f"{self.folder}: expected a folder to write to, found one that is read-only")
        except OSError as error:
            raise FileError(f"{self.folder}: expected a folder to write to, found: {error.strerror}") from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        io.write_json(self.config, config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process may lock the folder; however this one ends, the lock ends with it.

        Raises FileError where another process holds it or the folder cannot be written.
        """
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(path, "a+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise FileError(f"{self.folder}: expected a folder to write to, found: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise FileError(f"{self.folder}: expected no other run here, found process {lock.read()} at work") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            io.remove_leftovers(self.folder)
            yield


def _step(path: Path) -> int | None:
    digits = path.stem.removeprefix("state-")
    return int(digits) if digits.isdecimal() else None
