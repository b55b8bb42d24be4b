"""The display of a training run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .config import TrainConfig
from .observer import Best, Epoch, Observer, Plan

# Between the lines written where there is no terminal.
SECONDS_BETWEEN_LINES = 5.0


def progress(console: Console, config: TrainConfig) -> Observer:
    """A display of training as `config` says: likelihood, rate and the time that remains at most."""
    return _Bar(console, config) if console.is_terminal else _Lines(console, config)


class Pace:
    """How far a run is: the steps done of those planned, or the time used up where that runs out first."""

    def __init__(self, plan: Plan, seconds: float | None) -> None:
        self.plan, self.limit = plan, seconds or math.inf
        self.done, self.started = plan.done, time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def steps_per_second(self) -> float:
        return (self.done - self.plan.done) / max(self.elapsed, 1e-9)

    @property
    def fraction(self) -> float:
        return min(1.0, max(self.done / self.plan.steps, self.elapsed / self.limit))

    @property
    def remaining(self) -> float:
        """Seconds until the last step planned or the limit of time; inf while no step is done."""
        if self.done == self.plan.done:
            return math.inf
        return max(0.0, min((self.plan.steps - self.done) / self.steps_per_second, self.limit - self.elapsed))

    def __str__(self) -> str:
        steps_per_epoch = self.plan.steps / self.plan.epochs
        rows = self.steps_per_second * self.plan.rows / steps_per_epoch
        return f"{rows:.3g} rows/s, at most {_duration(self.remaining)} left"


def _duration(seconds: float) -> str:
    if math.isinf(seconds):
        return "?"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _likelihoods(record: Epoch, best: Best) -> str:
    return f"epoch {record.epoch}: train {record.train:.3f}, valid {record.valid:.3f} (best {best.record.valid:.3f}) nats/dim"


class _Paced(Observer):
    def __init__(self, console: Console, config: TrainConfig) -> None:
        self._console, self._limit = console, config.seconds

    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        self._pace = Pace(plan, self._limit)

    def step(self) -> None:
        self._pace.done += 1


class _Bar(_Paced):
    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        super().start(plan, records, best)
        # Narrow enough for a terminal of 80 columns.
        columns = (BarColumn(bar_width=11), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def step(self) -> None:
        super().step()
        self._progress.update(self._task, completed=self._pace.fraction)

    def epoch(self, record: Epoch, best: Best) -> None:
        self._progress.update(self._task, description=f"{_likelihoods(record, best)}\n{self._pace}")

    def finish(self) -> None:
        self._progress.update(self._task, completed=1.0)
        self._progress.stop()


class _Lines(_Paced):
    def __init__(self, console: Console, config: TrainConfig) -> None:
        super().__init__(console, config)
        self._written = -math.inf
        self._last = ""

    def epoch(self, record: Epoch, best: Best) -> None:
        self._last = f"{record.seconds:6.1f} s  {_likelihoods(record, best)}, {self._pace}"
        if time.monotonic() - self._written >= SECONDS_BETWEEN_LINES:
            self._write()

    def finish(self) -> None:
        if self._last:
            self._write()

    def _write(self) -> None:
        self._console.print(self._last, highlight=False, soft_wrap=True)
        self._written, self._last = time.monotonic(), ""
