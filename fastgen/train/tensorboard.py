"""Training curves for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .observer import Best, Epoch, Observer, Plan


class TensorBoard(Observer):
    """Writes the likelihoods and the learning rate of every epoch to a folder of event files.

    Raises ModuleNotFoundError where tensorboard is not installed (`pip install fastgen[tensorboard]`).
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "tensorboard: expected the package to be installed (pip install 'fastgen[tensorboard]'), found none"
            ) from error
        self.folder, self._writer = os.fspath(folder), SummaryWriter

    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        # What a run wrote after the state it is resumed from is written anew; the epoch that ended with it is not.
        self._events = self._writer(self.folder, purge_step=plan.done + 1)

    def epoch(self, record: Epoch, best: Best) -> None:
        for name in ("train", "valid", "rate", "skipped"):
            self._events.add_scalar(name, getattr(record, name), record.step)
        self._events.flush()

    def finish(self) -> None:
        self._events.close()
