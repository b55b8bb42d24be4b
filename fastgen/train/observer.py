"""What watches a training run: the log, the progress display, the checkpoint."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Epoch(NamedTuple):
    """One line of the log. train and valid are log-likelihoods in nats per dimension, seconds count from the start."""

    epoch: int
    step: int
    train: float
    valid: float
    rate: float
    seconds: float


class Best(NamedTuple):
    """The best epoch so far and a copy of the weights it ended with."""

    record: Epoch
    state: dict[str, Tensor]


class Observer:
    """Does nothing at every event; subclasses override what they need."""

    def step(self) -> None:
        """A step of the optimiser is done."""

    def epoch(self, record: Epoch, best: Best) -> None:
        """An epoch is done. `best.record` is `record` itself when it is the best so far."""

    def finish(self) -> None:
        """Training is over, whether it ended, was interrupted or failed."""
