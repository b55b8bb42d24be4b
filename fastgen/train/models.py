"""The models the training loop knows by name, made for a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import Dataset
from ..data.part import Rows
from ..flows import (
    IAF,
    MAF,
    NICE,
    ClassEmbedding,
    Flow,
    Logit,
    PlanarFlow,
    RadialFlow,
    RealNVP,
    Standardise,
    Transform,
    UnitInterval,
)
from ..models import (
    FVSBN,
    IWAE,
    VAE,
    AutoregressiveDensity,
    BernoulliMADE,
    CategoricalMADE,
    GaussianAutoregressive,
    GaussianMADE,
    MAFMoG,
    MixtureMADE,
)
from ..models.decoders import DiscretizedLogisticDecoder

MODELS: dict[str, type[nn.Module]] = {
    "maf": MAF,
    "iaf": IAF,
    "nice": NICE,
    "realnvp": RealNVP,
    "planar": PlanarFlow,
    "radial": RadialFlow,
    "maf-mog": MAFMoG,
    "gaussian-autoregressive": GaussianAutoregressive,
    "gaussian-made": GaussianMADE,
    "mixture-made": MixtureMADE,
    "fvsbn": FVSBN,
    "bernoulli-made": BernoulliMADE,
    "categorical-made": CategoricalMADE,
    "vae": VAE,
    "iwae": IWAE,
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
    if issubclass(kind, VAE):
        return kind(data.features, **_likelihood(name, data, **options), dtype=dtype)
    given = {"context_features": data.context_features, "dtype": dtype, **options}
    if getattr(kind, "discrete", False):
        return kind(data.features, **_levels(name, data), **given)
    _expect_shape(data, options.get("shape"))
    model = kind(data.features, preprocess=preprocessing(data), **given)
    if data.context_features and isinstance(model, Flow) and not isinstance(model.embedding, ClassEmbedding):
        model.standardise_context = Standardise.fit(_contexts(data))
    return model


def _likelihood(name: str, data: Dataset, **options: Any) -> dict[str, Any]:
    """The options of a VAE, with a likelihood that suits the data where they name none, and what it needs of the data."""
    if data.context_features:
        raise ValueError(f"data: expected rows without a context for {name}, found {data.context_features} features of it")
    likelihood = options.get("likelihood", "gaussian" if data.levels is None else "bernoulli")
    if likelihood == "gaussian":
        return {**options, "likelihood": likelihood, "preprocess": preprocessing(data)}
    if likelihood == "discretized_logistic":
        if data.levels is None:
            raise ValueError(f"data: expected rows of levels for {likelihood}, found none in {data.name}")
        return {**options, "levels": data.levels}
    return {**options, "likelihood": likelihood}


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

    For a VAE with a Bernoulli likelihood levels become zeros and ones (`Dataset.binarised`).

    Raises ValueError where probabilities are of fewer levels than the rows have, or of other numbers.
    """
    if not getattr(model, "discrete", False):
        return data
    if isinstance(model, AutoregressiveDensity):
        _expect_levels(data, model, model.conditional.levels)
    if isinstance(model, VAE):
        return _fit_for_vae(model, data)
    return data.discrete()


def _fit_for_vae(model: VAE, data: Dataset) -> Dataset:
    if isinstance(model.decoder, DiscretizedLogisticDecoder):
        _expect_levels(data, model, model.decoder.levels)
    elif data.levels is not None:
        return data.binarised()
    else:
        _expect_rows(data, "numbers from 0 to 1", model, lambda rows: (rows >= 0) & (rows <= 1))
    return data.discrete()


def _expect_levels(data: Dataset, model: nn.Module, levels: int) -> None:
    if data.levels is None or data.levels > levels:
        expected = f"whole numbers from 0 to {levels - 1}"
        _expect_rows(data, expected, model, lambda rows: (rows >= 0) & (rows <= levels - 1) & (rows == np.rint(rows)))


def _expect_rows(data: Dataset, expected: str, model: nn.Module, fit: Callable[[Rows], NDArray[np.bool_]]) -> None:
    """Raises ValueError for rows with a number that does not `fit`."""
    for part in (data.train, data.valid, data.test):
        for rows in (chunk.rows for chunk in part.chunks()):
            bad = ~fit(rows)
            if bad.any():
                found = f"{rows[bad][0]:.9g} in {data.name}"
                raise ValueError(f"data: expected {expected} for {type(model).__name__}, found {found}")


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
