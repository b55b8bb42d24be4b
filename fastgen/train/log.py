"""The CSV log of a training run, and reading it back."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ..io import FileError
from .observer import Best, Epoch, Observer


class CsvLog(Observer):
    """Appends a line per epoch to a new file, complete after every epoch.

    Raises FileError where the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._writer = csv.writer(self._file)
        self._write(Epoch._fields)

    def epoch(self, record: Epoch, best: Best) -> None:
        self._write(tuple(record))

    def finish(self) -> None:
        self._file.close()

    def _write(self, values: tuple[object, ...]) -> None:
        self._writer.writerow(values)
        self._file.flush()
