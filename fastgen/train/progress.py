"""The display of a training run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .observer import Best, Epoch, Observer

# Between the lines written where there is no terminal.
SECONDS_BETWEEN_LINES = 5.0


def progress(console: Console, rows: int, batch_size: int, epochs: int) -> Observer:
    """A display of training for at most `epochs` epochs over `rows` rows."""
    return _Bar(console, math.ceil(rows / batch_size) * epochs) if console.is_terminal else _Lines(console)


def _line(record: Epoch, best: Best) -> str:
    return f"epoch {record.epoch}: train {record.train:.4f}, valid {record.valid:.4f} (best {best.record.valid:.4f}) nats/dim"


class _Bar(Observer):
    def __init__(self, console: Console, steps: int) -> None:
        columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("steps"), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.description}"), console=console)
        self._task = self._progress.add_task("", total=steps)
        self._progress.start()

    def step(self) -> None:
        self._progress.advance(self._task)

    def epoch(self, record: Epoch, best: Best) -> None:
        self._progress.update(self._task, description=_line(record, best))

    def finish(self) -> None:
        self._progress.stop()


class _Lines(Observer):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._written = -math.inf
        self._last = ""

    def epoch(self, record: Epoch, best: Best) -> None:
        self._last = f"{record.seconds:6.1f} s  {_line(record, best)}"
        if time.monotonic() - self._written >= SECONDS_BETWEEN_LINES:
            self._write()

    def finish(self) -> None:
        if self._last:
            self._write()

    def _write(self) -> None:
        self._console.print(self._last, highlight=False)
        self._written, self._last = time.monotonic(), ""
