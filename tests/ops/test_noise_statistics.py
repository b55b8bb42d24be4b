"""The noise of the kernels: 10^7 draws against the standard normal, and against one another."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastgen import ops

pytestmark = pytest.mark.usefixtures("cpu_backend")

ROWS, FEATURES = 10_000, 1000


def draw(seed: int, rows: int = ROWS) -> Tensor:
    zeros = torch.zeros(()).expand(rows, FEATURES)
    return ops.gaussian_rsample_kl(zeros, zeros, seed=torch.tensor(seed))[0]


def test_it_is_standard_normal() -> None:
    """Moments within five standard errors, and the distribution function: sqrt(n) times its error is 1.95 once in 1000."""
    z = draw(3).flatten()
    n = z.numel()
    power = torch.ones(n, dtype=torch.float64)
    for order, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (5, 0, 945), (6, 15, 10170)):
        power *= z
        assert abs(float(power.mean()) - mean) < 5 * math.sqrt(variance / n), order
    exact = torch.special.ndtr(z.sort().values.double())
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert math.sqrt(n) * float((steps - exact).abs().max()) < 1.95


def test_rows_calls_and_lags_are_independent() -> None:
    """Correlations of values and of squares, within five standard errors, over 10^7 pairs each."""
    first, second = draw(5), draw(6)
    flat = first.flatten()
    pairs = [(flat[:-lag], flat[lag:]) for lag in (1, 2, 3, 4, 64)]
    pairs += [(first[:-1], first[1:]), (first, second)]
    for x, y in pairs:
        bound = 5 / math.sqrt(x.numel())
        assert abs(float((x * y).double().mean())) < bound
        # Of variance 2 each.
        assert abs(float(((x * x - 1) * (y * y - 1)).double().mean())) < 2 * bound


def test_it_is_the_same_again_and_no_row_or_call_repeats() -> None:
    first, again, other = draw(-7, 2000), draw(-7, 2000), draw(-8, 2000)
    assert torch.equal(first, again)
    rows = torch.cat((first, other))[:, :4]
    assert len(torch.unique(rows, dim=0)) == len(rows)
