"""Gaussian baselines: what a flow has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import Dataset

# Variance added to every feature, relative to the mean variance: constant features get a density, others feel nothing.
RIDGE = 1e-6
# Of the uniform noise in [0, 1) that an epoch adds to whole grey levels.
_NOISE_MEAN, _NOISE_VARIANCE = 1 / 2, 1 / 12


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution: mean (features,) and covariance (features, features), float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def log_prob(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """The log-density of rows (n, features) in nats, (n,)."""
        factor = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(factor, (rows - self.mean).T)
        log_det = np.log(np.diag(factor)).sum()
        return -0.5 * (white**2).sum(axis=0) - log_det - 0.5 * len(self.mean) * math.log(2 * math.pi)


def fit_gaussians(data: Dataset) -> dict[str, Gaussian]:
    """The diagonal and the full-covariance Gaussian of largest likelihood on `data.train`, with `RIDGE`.

    Where an epoch adds noise the likelihood is the mean over that noise.
    """
    rows = data.train.astype(np.float64)
    mean, covariance = rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
    if data.levels is not None:
        mean, covariance = mean + _NOISE_MEAN, covariance + _NOISE_VARIANCE * np.eye(data.features)
    covariance = covariance + max(RIDGE * covariance.diagonal().mean(), np.finfo(np.float32).tiny) * np.eye(data.features)
    return {
        "diagonal Gaussian": Gaussian(mean, np.diag(covariance.diagonal())),
        "full-covariance Gaussian": Gaussian(mean, covariance),
    }
