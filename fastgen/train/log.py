"""The CSV log of a training run, and reading it back."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from ..io import FileError, write_atomically
from .observer import Best, Epoch, Observer, Plan


class CsvLog(Observer):
    """A line per epoch, complete after every epoch. A run that goes on starts with the lines of the epochs behind it.

    Raises FileError where the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        text = StringIO(newline="")
        csv.writer(text).writerows([Epoch._fields, *records])
        write_atomically(self.path, text.getvalue().encode())

    def epoch(self, record: Epoch, best: Best) -> None:
        try:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(record)
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written: {error.strerror}") from error


def read_log(path: str | os.PathLike[str]) -> list[Epoch]:
    """The records a CsvLog wrote. Raises FileError, naming the file and the line."""
    line = 1
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            if tuple(next(lines, ())) != Epoch._fields:
                raise FileError(f"{path}: expected the columns {', '.join(Epoch._fields)} in line 1")
            records = []
            for line, (epoch, step, train, valid, rate, seconds, skipped) in enumerate(lines, 2):  # noqa: B007
                nats = float(train), float(valid)
                if not all(map(math.isfinite, nats)):
                    raise ValueError("one that is not finite")
                records.append(Epoch(int(epoch), int(step), *nats, float(rate), float(seconds), int(skipped)))
            return records
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise FileError(f"{path}: expected {len(Epoch._fields)} numbers in line {line}, found: {error}") from error
