from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastgen.flows import MAF, Flow, Inverse, Standardise, StandardNormal, Truncated

DOUBLE = torch.float64
INF = math.inf


def maf(features: int = 2, **options) -> MAF:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    flow = MAF(features, transforms=2, hidden_features=(8,), dtype=DOUBLE, **options)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.3)
    return flow


def normal(features: int = 1) -> Flow:
    """The standard normal distribution as a flow."""
    return Flow(StandardNormal(features, dtype=DOUBLE), Inverse(Standardise(features).double()))


def probability(low: float, high: float) -> float:
    return 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(truncated: Truncated) -> float:
    """The relative standard error of the acceptance rate, which is that of a density."""
    return float((truncated.acceptance.standard_error / truncated.acceptance.rate).max())


@pytest.mark.parametrize("box", [(-0.5, 1.0), (0.3, None), (None, 0.0)])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_density_integrates_to_one_in_one_dimension(box, conditional: bool) -> None:  # type: ignore[no-untyped-def]
    flow = maf(1, context_features=2 if conditional else 0)
    context = torch.randn(2, dtype=DOUBLE) if conditional else None
    truncated = Truncated(flow, *box)
    low, high = (b if b is not None else 30.0 * sign for b, sign in zip(box, (-1, 1), strict=True))
    n = 20000
    middles = low + (high - low) * (torch.arange(n, dtype=DOUBLE)[:, None] + 0.5) / n
    total = truncated.log_prob(middles, context, n=40000, generator=generator()).exp().sum() * (high - low) / n
    assert abs(float(total) - 1) < 5 * error(truncated) + 1e-4
    assert error(truncated) < 0.02


def test_the_density_integrates_to_one_in_two_dimensions() -> None:
    truncated = Truncated(maf(2), [-1.0, -0.5], [0.5, 2.0])
    n = 300
    axes = [low + (high - low) * (torch.arange(n, dtype=DOUBLE) + 0.5) / n for low, high in ((-1.0, 0.5), (-0.5, 2.0))]
    density = truncated.log_prob(torch.cartesian_prod(*axes), n=40000, generator=generator()).exp()
    assert abs(float(density.sum()) * 1.5 * 2.5 / n**2 - 1) < 5 * error(truncated) + 1e-4


def test_it_is_the_truncated_normal() -> None:
    truncated = Truncated(normal(), 0.5, 2.0)
    z = probability(0.5, 2.0)
    rate = truncated.acceptance_rate(200000, generator=generator())
    assert abs(float(rate) - z) < 5 * float(truncated.acceptance.standard_error)
    torch.testing.assert_close(
        truncated.acceptance.standard_error, torch.tensor(z * (1 - z) / 200000, dtype=DOUBLE).sqrt(), rtol=0.01, atol=0
    )
    x = truncated.sample(20000, generator=generator(1))
    assert ((x >= 0.5) & (x <= 2.0)).all() and x.shape == (20000, 1)
    density = [math.exp(-0.5 * b * b) / math.sqrt(2 * math.pi) for b in (0.5, 2.0)]
    mean = (density[0] - density[1]) / z
    variance = 1 + (0.5 * density[0] - 2.0 * density[1]) / z - mean**2
    # Five standard deviations of the mean; of the variance, that of a flatter distribution than the normal.
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / 20000)
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / 20000)
    # What sampling reports is the same rate.
    assert abs(float(truncated.acceptance.rate) - z) < 5 * float(truncated.acceptance.standard_error)
    assert truncated.acceptance.accepted >= 20000


def test_outside_there_is_no_density() -> None:
    flow = normal(2)
    truncated = Truncated(flow, [-1.0, None], 1.0)
    x = torch.tensor([[0.0, 0.0], [-1.0, -50.0], [-1.1, 0.0], [0.0, 1.1], [torch.nan, 0.0]], dtype=DOUBLE)
    log_prob = truncated.log_prob(x, generator=generator())
    log_z = math.log(probability(-1, 1) * probability(-60, 1))
    torch.testing.assert_close(log_prob[:2], flow.log_prob(x[:2]) - log_z, rtol=0, atol=5 * error(truncated))
    assert log_prob[2:].tolist() == [-INF] * 3 and not log_prob.requires_grad


@pytest.mark.parametrize("n", [0, 1, 300, (), (2, 3)])
@pytest.mark.parametrize("context_shape", [None, (2,), (5, 2), (3, 1, 2), (0, 2)])
def test_samples_lie_inside_in_every_shape(n, context_shape) -> None:  # type: ignore[no-untyped-def]
    flow = maf(context_features=0 if context_shape is None else 2)
    context = None if context_shape is None else torch.randn(context_shape, dtype=DOUBLE)
    truncated = Truncated(flow, [-0.4, None], [None, 0.3])
    x = truncated.sample(n, context)
    batch = () if context is None else context.shape[:-1]
    assert x.shape == (*((n,) if isinstance(n, int) else n), *batch, 2) and x.dtype == DOUBLE
    assert (x[..., 0] >= -0.4).all() and (x[..., 1] <= 0.3).all()
    assert truncated.acceptance.rate.shape == batch
    if x.numel():
        assert len(x[..., 0].unique()) == x[..., 0].numel()
        assert truncated.log_prob(x, context, n=1000).isfinite().all()


class Shifted(StandardNormal):
    """A normal distribution with the context as its mean."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(z - context)

    def rsample(self, shape=(), context=None, *, generator=None) -> Tensor:  # type: ignore[no-untyped-def]
        return super().rsample(shape, generator=generator) + context


def test_each_context_has_its_own_truncation() -> None:
    flow = Flow(Shifted(1, dtype=DOUBLE), Inverse(Standardise(1).double()))
    context = torch.tensor([[-2.0], [0.0], [1.5]], dtype=DOUBLE)
    truncated = Truncated(flow, 0.0, 1.0)
    truths = [probability(-float(c), 1 - float(c)) for c in context]
    rate = truncated.acceptance_rate(100000, context, generator=generator())
    assert ((rate - torch.tensor(truths)).abs() < 5 * truncated.acceptance.standard_error).all()
    x = truncated.sample(8000, context, generator=generator(1))
    for i, c in enumerate(context.squeeze(-1).tolist()):
        density = [math.exp(-0.5 * (b - c) ** 2) / math.sqrt(2 * math.pi) for b in (0.0, 1.0)]
        mean = c + (density[0] - density[1]) / truths[i]
        # No distribution on [0, 1] has a deviation above 1/2.
        assert abs(float(x[:, i].mean()) - mean) < 5 * 0.5 / math.sqrt(8000)
        assert abs(float(truncated.acceptance.rate[i]) - truths[i]) < 5 * float(truncated.acceptance.standard_error[i])
    point = torch.tensor([[0.5]], dtype=DOUBLE)
    log_prob = truncated.log_prob(point, context, n=100000, generator=generator())
    normals = torch.distributions.Normal(context, 1.0).log_prob(point).squeeze(-1)
    expected = normals - torch.tensor(truths, dtype=DOUBLE).log()
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=5 * error(truncated))


def test_the_rate_is_kept_until_the_flow_changes() -> None:
    flow = maf()
    truncated = Truncated(flow, -1.0, 1.0)
    x = torch.zeros(1, 2, dtype=DOUBLE)
    first = truncated.log_prob(x, n=1000)
    assert torch.equal(truncated.log_prob(x, n=1000), first)
    # Another n is another estimate.
    assert not torch.equal(truncated.log_prob(x, n=999), first)
    second = truncated.log_prob(x, n=1000, generator=generator())
    with torch.no_grad():
        next(flow.parameters()).mul_(1.0)
    third = truncated.log_prob(x, n=1000, generator=generator(1))
    assert not torch.equal(second, third) and torch.equal(truncated.log_prob(x, n=1000), third)


def test_a_box_that_is_hardly_reached_is_refused() -> None:
    truncated = Truncated(normal(), 6.0, None, max_draws=1000)
    with pytest.raises(
        RuntimeError, match=r"Truncated: expected at least one draw in 1000 inside the box, found 0 of \d+ draws"
    ):
        truncated.sample(10)
    with pytest.raises(RuntimeError, match="Truncated: expected draws inside the box, found none among 500"):
        truncated.log_prob(torch.full((1, 1), 7.0, dtype=DOUBLE), n=500)
    # One row of contexts in three cannot be served.
    flow = Flow(Shifted(1, dtype=DOUBLE), Inverse(Standardise(1).double()))
    with pytest.raises(RuntimeError, match="expected at least one draw in 200"):
        Truncated(flow, 0.0, None, max_draws=200).sample(5, torch.tensor([[1.0], [-8.0], [0.0]], dtype=DOUBLE))
    # One in 740 is enough for the default.
    assert (Truncated(normal(), 3.0, None).sample(200) >= 3).all()


def test_the_generator_rules_the_samples() -> None:
    truncated = Truncated(maf(), 0.0, None)
    draws = [truncated.sample(50, generator=generator(3)) for _ in range(2)]
    assert torch.equal(*draws) and not torch.equal(draws[0], truncated.sample(50, generator=generator(4)))


def test_it_has_the_place_and_dtype_of_its_flow() -> None:
    flow = MAF(2, transforms=1, hidden_features=(8,), dtype=DOUBLE)
    truncated = Truncated(flow, 0.1, None)
    assert truncated.box.low.tolist() == [0.1, 0.1] and truncated.float().sample(3).dtype == torch.float32
    assert not truncated.discrete


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Truncated(normal(), 1.0, 1.0), "low: expected less than high for feature 0"),
        (lambda: Truncated(normal(2), [0.0, 0.0, 0.0], None), "low: expected a number or 2 of them, found 3"),
        (lambda: Truncated(normal(), 0.0, 1.0, max_draws=0), "max_draws: expected at least 1, found 0"),
        (lambda: Truncated(normal(), 0.0, 1.0).acceptance_rate(0), "n: expected at least 1, found 0"),
        (lambda: Truncated(normal(), 0.0, 1.0).sample(-1), "n: expected at least 0 samples, found -1"),
        (lambda: Truncated(normal(2), 0.0, 1.0).log_prob(torch.zeros(3)), r"x: expected shape \(..., 2\), found \(3,\)"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
