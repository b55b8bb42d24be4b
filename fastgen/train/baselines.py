"""Simple densities: what a model has to beat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset, Part

# Variance added to every feature, relative to the mean variance: constant features get a density, others feel nothing.
RIDGE = 1e-6
# Of the uniform noise in [0, 1) that an epoch adds to whole levels.
_NOISE_MEAN, _NOISE_VARIANCE = 1 / 2, 1 / 12
# A covariance of more features than this is neither fitted nor inverted for the sake of a comparison.
MOST_FEATURES = 2048


class Baseline(Protocol):
    def log_prob(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """The log-likelihood of rows (n, features) in nats, (n,)."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution, float64: mean (features,), covariance (features, features) or its diagonal (features,)."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def log_prob(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        away = rows - self.mean
        if self.covariance.ndim == 1:
            scale = np.sqrt(self.covariance)
            white = away / scale
        else:
            factor = np.linalg.cholesky(self.covariance)
            white, scale = np.linalg.solve(factor, away.T).T, np.diag(factor)
        return -0.5 * (white**2).sum(axis=1) - np.log(scale).sum() - 0.5 * len(self.mean) * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Independent:
    """Features independent of each other, each with its own probability for every level: (features, levels), float64."""

    log_probability: NDArray[np.float64]

    def log_prob(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        return self.log_probability[np.arange(rows.shape[1]), rows.astype(np.intp)].sum(axis=1)


def baselines(data: Dataset) -> dict[str, Baseline]:
    """Simple densities fitted to `data.train`: Gaussians, or independent features where the rows are levels without noise."""
    return {"independent features": fit_independent(data)} if data.levels and not data.noise else {**fit_gaussians(data)}


def fit_independent(data: Dataset) -> Independent:
    """The frequency of every level of every feature, each counted once more than it was seen."""
    assert data.levels is not None
    counts = np.ones((data.features, data.levels))
    for rows, weight in _weighted(data.held_out("train")):
        for level in range(data.levels):
            counts[:, level] += weight @ (rows == level)
    return Independent(np.log(counts / counts.sum(axis=1, keepdims=True)))


def fit_gaussians(data: Dataset) -> dict[str, Gaussian]:
    """The diagonal and the full-covariance Gaussian of largest likelihood on `data.train`, with `RIDGE`.

    Where an epoch adds noise the likelihood is the mean over that noise. Beyond `MOST_FEATURES` features only the diagonal.
    """
    full = data.features <= MOST_FEATURES
    mean, covariance = _moments(data, full)
    variance = covariance.diagonal() if full else covariance
    extra = max(RIDGE * variance.mean(), np.finfo(np.float32).tiny)
    if data.levels is not None and data.noise:
        mean, extra = mean + _NOISE_MEAN, extra + _NOISE_VARIANCE
    gaussians = {"diagonal Gaussian": Gaussian(mean, variance + extra)}
    if full:
        gaussians["full-covariance Gaussian"] = Gaussian(mean, covariance + extra * np.eye(data.features))
    return gaussians


def _weighted(parts: Iterator[Part]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The rows and their weights, in pieces."""

    def weight(part: Part) -> NDArray[np.float64]:
        return np.ones(len(part)) if part.weight is None else part.weight.astype(np.float64)

    return ((part.rows.astype(np.float64), weight(part)) for part in parts)


def _moments(data: Dataset, full: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of the training rows, or its diagonal alone.

    Sums are taken around the first piece's mean, lest they cancel.
    """
    centre: NDArray[np.float64] | None = None
    count = total = products = np.zeros(())
    for rows, weight in _weighted(data.train.chunks()):
        centre = rows.mean(axis=0) if centre is None else centre
        away = rows - centre
        count = count + weight.sum()
        total = total + weight @ away
        products = products + ((weight[:, None] * away).T @ away if full else weight @ away**2)
    assert centre is not None
    mean = total / count
    return centre + mean, products / count - (np.outer(mean, mean) if full else mean**2)
