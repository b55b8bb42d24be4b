"""The models the training loop knows by name, made for a data set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Dataset
from ..flows import IAF, MAF, NICE, ClassEmbedding, Flow, Logit, RealNVP, Standardise, Transform, UnitInterval
from ..models import (
    FVSBN,
    AutoregressiveDensity,
    BernoulliMADE,
    CategoricalMADE,
    GaussianAutoregressive,
    GaussianMADE,
    MAFMoG,
    MixtureMADE,
)

MODELS: dict[str, type[nn.Module]] = {
    "maf": MAF,
    "iaf": IAF,
    "nice": NICE,
    "realnvp": RealNVP,
    "maf-mog": MAFMoG,
    "gaussian-autoregressive": GaussianAutoregressive,
    "gaussian-made": GaussianMADE,
    "mixture-made": MixtureMADE,
    "fvsbn": FVSBN,
    "bernoulli-made": BernoulliMADE,
    "categorical-made": CategoricalMADE,
}

# Pixels are squeezed before the logit, which leaves so much of a grey level beyond each end: with less the noise on black
# pixels is stretched further.
MARGIN = 0.17


def build(name: str, data: Dataset, **options: Any) -> nn.Module:
    """The model of that name for rows as `data` has them, preprocessing included.

    Its log_prob is in nats per row of the data as they are. `options` are the model's own.

    Raises ValueError where the data is not what the model is of, TypeError for an option it does not have.
    """
    kind = MODELS[name]
    dtype = torch.float64 if data.train.dtype == "float64" else torch.float32
    given = {"context_features": data.context_features, "dtype": dtype, **options}
    if getattr(kind, "discrete", False):
        return kind(data.features, **_levels(name, data), **given)
    _expect_shape(data, options.get("shape"))
    model = kind(data.features, preprocess=preprocessing(data), **given)
    if data.context_features and isinstance(model, Flow) and not isinstance(model.embedding, ClassEmbedding):
        model.standardise_context = Standardise.fit(_contexts(data))
    return model


def _expect_shape(data: Dataset, shape: Sequence[int] | None) -> None:
    """Raises ValueError where a model is of images (channels, height, width) that the data does not have."""
    found = None if data.image_shape is None else (1, *data.image_shape)
    if shape is not None and tuple(shape) != found and (found is not None or math.prod(shape) != data.features):
        what = f"{data.features} features" if found is None else f"images of {list(found)}"
        raise ValueError(f"shape: expected that of the rows of {data.name}, {what}, found {list(shape)}")


def _contexts(data: Dataset) -> Iterator[Tensor]:
    return (torch.from_numpy(part.context) for part in data.train.chunks() if part.context is not None)


def fit_for(model: nn.Module, data: Dataset) -> Dataset:
    """The data set as `model` is trained on it: levels with noise for densities, without for probabilities.

    Raises ValueError where probabilities are of fewer levels than the rows have.
    """
    if not getattr(model, "discrete", False):
        return data
    if isinstance(model, AutoregressiveDensity):
        _expect_levels(data, model)
    return data.discrete()


def _expect_levels(data: Dataset, model: AutoregressiveDensity) -> None:
    levels = model.conditional.levels
    if data.levels is not None and data.levels <= levels:
        return
    for part in (data.train, data.valid, data.test):
        for rows in (chunk.rows for chunk in part.chunks()):
            bad = (rows < 0) | (rows > levels - 1) | (rows != np.rint(rows))
            if bad.any():
                expected = f"whole numbers from 0 to {levels - 1} for {type(model).__name__}"
                raise ValueError(f"data: expected {expected}, found {rows[bad][0]:.9g} in {data.name}")


def _levels(name: str, data: Dataset) -> dict[str, int]:
    binary = issubclass(MODELS[name], BernoulliMADE)
    if data.levels is None or (binary and data.levels != 2):
        expected = "0 and 1" if binary else "whole levels"
        raise ValueError(f"data: expected rows of {expected} for {name}, found {data.levels or 'no'} levels in {data.name}")
    return {} if binary else {"categories": data.levels}


def preprocessing(data: Dataset) -> list[Transform]:
    """What brings rows to mean 0 and variance 1: levels through a logit first."""
    before = [] if data.levels is None else [UnitInterval(data.levels), Logit(MARGIN / data.levels)]

    def transformed() -> Iterator[Tensor]:
        for part in data.held_out("train"):
            rows = torch.from_numpy(part.rows)
            for transform in before:
                rows, _ = transform(rows)
            yield rows

    return [*before, Standardise.fit(transformed())]
