"""The models the training loop knows by name, made for a data set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..flows import MAF, Flow, Logit, Standardise, Transform, UnitInterval, dequantise

MODELS = {"maf": MAF}

# Pixels are squeezed into [ALPHA, 1 - ALPHA] before the logit: smaller values stretch the noise on black pixels further.
ALPHA = 0.01


def build(name: str, data: Dataset, **options: Any) -> Flow:
    """The model of that name for rows as `data` has them, preprocessing included.

    Its log_prob is in nats per row of the data as they are. `options` are the model's own.
    """
    return MODELS[name](data.features, preprocess=preprocessing(data), **options)


def preprocessing(data: Dataset) -> list[Transform]:
    """What brings rows to mean 0 and variance 1: grey levels through a logit first."""
    rows = torch.from_numpy(data.train)
    before: list[Transform] = []
    if data.levels is not None:
        rows = dequantise(rows, torch.Generator().manual_seed(data.seed))
        before = [UnitInterval(data.levels), Logit(ALPHA)]
        for transform in before:
            rows, _ = transform(rows)
    return [*before, Standardise.fit(rows)]


def samples_in_range(data: Dataset, samples: Tensor) -> Tensor:
    """Samples with what lies beyond the grey levels, as the inverse of the logit allows, brought back to them."""
    return samples if data.levels is None else samples.clamp(0, data.levels)
