"""Whether a model can be trained on a data set: asked before anything is written."""

from __future__ import annotations

import torch
from torch import nn

from ..data import Dataset
from ..flows import BatchNorm
from .batches import place, smallest_batch
from .config import TrainConfig
from .evaluate import evaluating, log_prob_of, row_log_prob

TRIED_ROWS = 2


def expect_trainable(model: nn.Module, data: Dataset, config: TrainConfig) -> None:
    """Raises ValueError, or what `model.log_prob` raises, where `train` could not take a step.

    That is for a model without parameters to learn, for a log_prob that does not give a number per row of `data`, and for
    batches of one row where the model has a BatchNorm.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model: expected parameters to learn, found none")
    smallest = smallest_batch(len(data.train), config.batch_size)
    if smallest <= config.accumulate and any(isinstance(module, BatchNorm) for module in model.modules()):
        found = f"{smallest} in {config.accumulate} pieces" if config.accumulate > 1 else str(smallest)
        raise ValueError(f"batch_size: expected at least 2 rows at a time for a batch normalisation, found {found}")
    rows = place(next(data.held_out("valid")), next(model.parameters())).rows(0, TRIED_ROWS)
    with torch.no_grad(), evaluating(model):
        log_prob = row_log_prob(log_prob_of(model), rows)
    if log_prob.shape != rows.x.shape[:1]:
        raise ValueError(f"model: expected a log_prob of shape {tuple(rows.x.shape[:1])}, found {tuple(log_prob.shape)}")
