"""What watches a training run: the log, the progress display, the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Epoch(NamedTuple):
    """One line of the log. train and valid are log-likelihoods in nats per dimension, seconds count from the start.

    skipped: the steps of this epoch that were left out because their loss or gradient was not finite.
    """

    epoch: int
    step: int
    train: float
    valid: float
    rate: float
    seconds: float
    skipped: int = 0


class Best(NamedTuple):
    """The best epoch so far and a copy of the weights it ended with."""

    record: Epoch
    state: dict[str, Tensor]


class Plan(NamedTuple):
    """What a run is about to do: at most `steps` steps on `rows` rows an epoch, of which `done` are behind it."""

    steps: int
    done: int
    rows: int
    epochs: int


class Observer:
    """Does nothing at every event; subclasses override what they need."""

    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        """Training begins, or goes on after `records`."""

    def step(self) -> None:
        """A step of the optimiser is done."""

    def epoch(self, record: Epoch, best: Best) -> None:
        """An epoch is done. `best.record` is `record` itself when it is the best so far."""

    def finish(self) -> None:
        """Training is over, whether it ended, was interrupted or failed."""
