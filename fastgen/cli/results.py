"""What a trained model is worth, beside simple densities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from rich.table import Table
from torch import Tensor, nn

from ..data import Dataset
from ..models import VAE
from ..train import LogLikelihood, RunFolder, baselines, log_likelihood
from ..train.baselines import Baseline

Likelihoods = Mapping[str, LogLikelihood]

# Of a VAE's importance sampling.
SAMPLES = 100


def held_out(
    name: str, model: nn.Module, data: Dataset, part: str = "test", samples: int = SAMPLES
) -> dict[str, LogLikelihood]:
    """The log-likelihood of the rows of a part: that of `model`, then of what is fitted to the training rows.

    Of a VAE its bound, and beside it what importance sampling with so many samples makes of the log-likelihood.
    """
    found = {name: log_likelihood(model, data, part)}
    if isinstance(model, VAE):
        estimate = partial(_estimate, model, samples)
        found[f"{name}, {samples} samples"] = log_likelihood(model, data, part, log_prob=estimate)
    simple = {baseline: _of_baseline(density, data, part) for baseline, density in baselines(data).items()}
    return {**found, **simple}


def _estimate(model: VAE, samples: int, x: Tensor) -> Tensor:
    return model.log_prob_estimate(x, samples)[0]


def _of_baseline(density: Baseline, data: Dataset, part: str) -> LogLikelihood:
    pieces = list(data.held_out(part))
    weights = [piece.weight for piece in pieces if piece.weight is not None]
    nats = np.concatenate([density.log_prob(piece.rows) for piece in pieces])
    return LogLikelihood(nats, np.concatenate(weights).astype(np.float64) if weights else None)


def nats_per_dim(data: Dataset, likelihoods: Likelihoods) -> dict[str, float]:
    return {name: found.mean / data.features for name, found in likelihoods.items()}


def likelihood_table(data: Dataset, likelihoods: Likelihoods, part: str = "test") -> Table:
    """The likelihoods as a table, with the standard error of the mean, and bits per dimension for images."""
    images = data.grey_level is not None
    rows = len(getattr(data, part))
    table = Table(title=f"log-likelihood, {rows} {part} rows of {data.name}", title_justify="left")
    table.add_column("model")
    for column in ("nats/dim", "nats/row", "std. error", *(["bits/dim"] if images else [])):
        table.add_column(column, justify="right")
    for name, found in likelihoods.items():
        nats = found.mean / data.features
        bits = [f"{data.bits_per_dim(nats):.4f}"] if images else []
        table.add_row(name, f"{nats:.4f}", f"{found.mean:.3f}", f"{found.standard_error:.3f}", *bits)
    return table


def result_json(data: Dataset, likelihoods: Likelihoods) -> dict[str, object]:
    """What result.json says of the test rows."""
    nats = nats_per_dim(data, likelihoods)
    return {
        "nats_per_dim": {name: _finite(value) for name, value in nats.items()},
        "bits_per_dim": {name: _finite(data.bits_per_dim(value)) for name, value in nats.items()},
        "nats_per_row": {name: _finite(found.mean) for name, found in likelihoods.items()},
        "standard_error": {name: _finite(found.standard_error) for name, found in likelihoods.items()},
        "rows": len(data.test),
    }


def _finite(value: float | None) -> float | None:
    """JSON knows no nan, the standard error of a single row, and no inf, the likelihood of a row that a model excludes."""
    return value if value is not None and np.isfinite(value) else None


def file_table(files: RunFolder) -> Table:
    """The paths of a run's files."""
    table = Table(title="files", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in ("checkpoint", "picture", "log", "result", "config"):
        table.add_row(name, str(getattr(files, name)))
    return table
