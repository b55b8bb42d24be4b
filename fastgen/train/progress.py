"""The display of a training run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .config import TrainConfig
from .observer import Best, Epoch, Observer

# Between the lines written where there is no terminal.
SECONDS_BETWEEN_LINES = 5.0


def progress(console: Console, rows: int, config: TrainConfig) -> Observer:
    """A display of training on `rows` rows as `config` says."""
    return (
        _Bar(console, math.ceil(rows / config.batch_size) * config.epochs, config.seconds)
        if console.is_terminal
        else _Lines(console)
    )


def _line(record: Epoch, best: Best) -> str:
    return f"epoch {record.epoch}: train {record.train:.3f}, valid {record.valid:.3f} (best {best.record.valid:.3f}) nats/dim"


class _Bar(Observer):
    """Fills with the steps done, or with the time used up where that runs out first."""

    def __init__(self, console: Console, steps: int, seconds: float | None) -> None:
        self._steps, self._seconds = steps, seconds or math.inf
        self._done, self._start = 0, time.monotonic()
        # Narrow enough for a terminal of 80 columns.
        columns = (BarColumn(bar_width=11), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def step(self) -> None:
        self._done += 1
        used = (time.monotonic() - self._start) / self._seconds
        self._progress.update(self._task, completed=min(1.0, max(self._done / self._steps, used)))

    def epoch(self, record: Epoch, best: Best) -> None:
        self._progress.update(self._task, description=_line(record, best))

    def finish(self) -> None:
        self._progress.update(self._task, completed=1.0)
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
