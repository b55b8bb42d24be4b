"""The log-likelihood of held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import Dataset
from ..flows.reversible import same_random_numbers
from .batches import Batch, place

LogProb = Callable[..., Tensor]

# Rows per call where no gradients are kept.
EVALUATION_ROWS = 2048


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """The log-likelihood of rows in nats per row: float64, (n,), with a weight each where the data has any."""

    per_row: NDArray[np.float64]
    weight: NDArray[np.float64] | None = None

    @property
    def mean(self) -> float:
        return float(np.average(self.per_row, weights=self.weight))

    @property
    def standard_error(self) -> float:
        """Of the mean, as an estimate of the expected log-likelihood; nan for a single row."""
        n = len(self.per_row)
        if n < 2:
            return math.nan
        share = np.full(n, 1 / n) if self.weight is None else self.weight / self.weight.sum()
        return float(np.sqrt(n / (n - 1) * (share**2 * (self.per_row - self.mean) ** 2).sum()))

    def __len__(self) -> int:
        return len(self.per_row)


def log_prob_of(model: nn.Module) -> LogProb:
    """The log_prob of a density; of a model without one its `objective`, a bound in its place."""
    return cast(LogProb, getattr(model, "objective", None) or model.log_prob)


def row_log_prob(log_prob: LogProb, batch: Batch) -> Tensor:
    """log_prob of the rows of a batch, (n,)."""
    return log_prob(batch.x) if batch.context is None else log_prob(batch.x, batch.context)


def log_likelihood(
    model: nn.Module,
    data: Dataset,
    part: str = "test",
    *,
    log_prob: LogProb | None = None,
    check: Callable[[], None] = lambda: None,
) -> LogLikelihood:
    """The log_prob of the rows of a part, without gradients and in evaluation mode.

    What it draws from torch's generators is the same every time, and they are left as they were.

    log_prob: another function of the rows than `log_prob_of` the model.
    check: called now and then, to stop a long evaluation by raising.
    """
    log_prob = log_prob or log_prob_of(model)
    like = next(model.parameters())
    found: list[NDArray[np.float64]] = []
    weights: list[NDArray[np.floating]] = []
    with torch.no_grad(), evaluating(model), same_noise(like.device):
        for piece in data.held_out(part):
            for batch in place(piece, like).split(EVALUATION_ROWS):
                found.append(row_log_prob(log_prob, batch).double().cpu().numpy())
                check()
            if piece.weight is not None:
                weights.append(piece.weight)
    return LogLikelihood(np.concatenate(found), np.concatenate(weights).astype(np.float64) if weights else None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def same_noise(device: torch.device) -> Iterator[None]:
    """Inside, torch draws the same random numbers every time; afterwards it goes on as if nothing had been drawn."""
    with same_random_numbers(device):
        torch.manual_seed(0)
        yield
