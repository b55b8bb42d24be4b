"""Flows as transforms and distributions of torch.distributions, and inside Pyro."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import ExpTransform, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform

from fastgen import flows
from fastgen.interop import as_distribution, as_transform

D = 3
SMALL: dict[str, Any] = {"transforms": 2, "hidden_features": (8,)}
MADE_HERE: dict[str, Any] = {
    "MAF": lambda: flows.MAF(D, **SMALL),
    "IAF": lambda: flows.IAF(D, **SMALL),
    "RealNVP": lambda: flows.RealNVP(D, **SMALL),
    "planar": lambda: flows.PlanarFlow(D, transforms=3),
}


def perturbed(flow: flows.Flow, dtype: torch.dtype = torch.float64) -> flows.Flow:
    flow = flow.to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow.eval()


@pytest.fixture(autouse=True)
def validation() -> Iterator[None]:
    """As torch has it: importing zuko, in another test of this process, switches it off."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture(params=MADE_HERE)
def flow(request: pytest.FixtureRequest) -> flows.Flow:
    torch.manual_seed(0)
    return perturbed(MADE_HERE[request.param]())


@pytest.fixture
def conditional() -> flows.Flow:
    torch.manual_seed(0)
    return perturbed(flows.MAF(D, context_features=2, embedding={"features": 4}, standardise_context=True, **SMALL))


def normal() -> Normal:
    return Normal(torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_transformed_distribution_is_the_flow(flow: flows.Flow) -> None:
    distribution = TransformedDistribution(normal(), [as_transform(flow)])
    assert distribution.event_shape == (D,) and distribution.batch_shape == () and distribution.has_rsample
    x = distribution.rsample((5,))
    close(distribution.log_prob(x), flow.log_prob(x))
    x = torch.randn(4, D, dtype=torch.float64)
    close(distribution.log_prob(x), flow.log_prob(x))
    weights = list(flow.parameters())
    ours = torch.autograd.grad(flow.log_prob(x).sum(), weights)
    for a, b in zip(ours, torch.autograd.grad(distribution.log_prob(x).sum(), weights), strict=True):
        close(a, b)


@pytest.mark.parametrize("cache_size", [0, 1])
def test_both_directions_and_their_log_determinants(flow: flows.Flow, cache_size: int) -> None:
    transform = as_transform(flow, cache_size=cache_size)
    assert (
        transform.bijective
        and transform.domain.event_dim == transform.codomain.event_dim == 1
        and transform.inv.inv is transform
    )
    z = torch.randn(4, D, dtype=torch.float64)
    x = transform(z)
    close(x, flow.transform.inverse(z)[0])
    jacobian = torch.autograd.functional.jacobian(lambda z: transform(z), z[0])
    expected = torch.linalg.slogdet(jacobian)[1]
    x = transform(z)
    close(transform.log_abs_det_jacobian(z, x)[0], expected)
    close(transform.inv(x.clone()), z)
    close(transform.inv.log_abs_det_jacobian(x.clone(), z)[0], -expected)
    # Of other tensors than the latest, though equal ones.
    close(transform.log_abs_det_jacobian(z.clone(), x.clone())[0], expected)
    assert transform.forward_shape((4, D)) == transform.inverse_shape((4, D)) == (4, D)


def test_the_cache_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = perturbed(flows.MAF(D, **SMALL))
    calls = []
    for name in ("forward", "inverse"):
        original = getattr(flows.Composed, name)
        monkeypatch.setattr(flows.Composed, name, lambda *a, _f=original, _n=name, **o: calls.append(_n) or _f(*a, **o))
    z = torch.randn(2, D, dtype=torch.float64)
    cached = as_transform(flow)
    x = cached(z)
    assert cached(z) is x and cached.inv(x) is z and calls == ["inverse"]
    first = cached.log_abs_det_jacobian(z, x)
    assert cached.log_abs_det_jacobian(z, x) is first and calls == ["inverse"]
    free = cached.with_cache(0)
    assert free.with_cache(0) is free and free.of is flow and cached.with_cache(1) is cached
    x = free(z)
    close(free.inv(x), z)
    free.log_abs_det_jacobian(z, x)
    assert calls == ["inverse", "inverse", "forward", "inverse"]


def test_it_composes_with_others(flow: flows.Flow) -> None:
    composed = ComposeTransform([as_transform(flow), ExpTransform()])
    z = torch.randn(4, D, dtype=torch.float64)
    x = composed(z)
    close(composed.inv(x.clone()), z)
    distribution = TransformedDistribution(normal(), [composed])
    close(distribution.log_prob(x), flow.log_prob(x.log()) - x.log().sum(-1))


def test_sign_is_that_of_the_determinant() -> None:
    orders = ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0])
    for order in orders:
        own = flows.Composed([flows.Scaling(D), flows.Inverse(flows.Permutation(order)), flows.Unconditional(flows.Scaling(D))])
        jacobian = torch.autograd.functional.jacobian(as_transform(own), torch.randn(D))
        assert as_transform(own).sign == torch.linalg.det(jacobian).sign()

    class Own(flows.Transform):
        pass

    with pytest.raises(NotImplementedError, match="sign: not known for Own"):
        _ = as_transform(Own()).sign


def test_a_context_is_given_by_condition(conditional: flows.Flow) -> None:
    context = torch.randn(4, 2, dtype=torch.float64)
    transform = as_transform(conditional)
    distribution = TransformedDistribution(normal(), [transform.condition(context)])
    x = torch.randn(4, D, dtype=torch.float64)
    close(distribution.log_prob(x), conditional.log_prob(x, context))
    assert list(transform.condition(context).parameters()) == list(transform.parameters()) == list(conditional.parameters())
    with pytest.raises(ValueError, match="context: expected shape"):
        transform(x)


def test_a_module_that_trains_copies_and_pickles() -> None:
    torch.manual_seed(0)
    flow = perturbed(flows.MAF(D, **SMALL))
    transform = as_transform(flow)
    distribution = TransformedDistribution(normal(), [transform])
    x = torch.randn(64, D, dtype=torch.float64) * 0.1
    before = -distribution.log_prob(x).mean().item()
    optimizer = torch.optim.Adam(transform.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss = -distribution.log_prob(x.clone()).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < before - 0.3
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        close(other(x), transform(x))
        assert other.of is not flow and other == other and other != transform
    assert {transform: 1}[transform] == 1


def test_a_distribution_is_the_flow(flow: flows.Flow) -> None:
    distribution = as_distribution(flow)
    assert (distribution.batch_shape, distribution.event_shape, distribution.has_rsample) == ((), (D,), True)
    torch.manual_seed(1)
    x = distribution.sample((4, 2))
    torch.manual_seed(1)
    assert torch.equal(x, flow.sample((4, 2))) and not x.requires_grad and distribution.rsample().requires_grad
    close(distribution.log_prob(x), flow.log_prob(x))
    wide = distribution.expand((5,))
    assert (
        wide.sample((2,)).shape == (2, 5, D)
        and wide.log_prob(x[0, 0]).shape == (5,)
        and wide.expand((4, 5)).batch_shape == (4, 5)
    )
    with pytest.raises(ValueError, match=r"event_shape|size|shape"):
        distribution.log_prob(torch.zeros(2, D + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="within the support"):
        distribution.log_prob(torch.full((D,), math.nan, dtype=torch.float64))


def test_a_distribution_given_a_context(conditional: flows.Flow) -> None:
    context = torch.randn(4, 2, dtype=torch.float64)
    distribution = as_distribution(conditional, context)
    assert distribution.batch_shape == (4,)
    x = distribution.sample((6,))
    assert x.shape == (6, 4, D)
    close(distribution.log_prob(x), conditional.log_prob(x, context))
    wide = distribution.expand((3, 4))
    assert wide.rsample().shape == (3, 4, D) and wide.log_prob(x[0]).shape == (3, 4)
    assert Independent(distribution, 1).log_prob(x).shape == (6,)


def test_a_distribution_copies_and_pickles(conditional: flows.Flow) -> None:
    distribution = as_distribution(conditional, torch.randn(4, 2, dtype=torch.float64)).expand((3, 4))
    x = distribution.rsample()
    for other in (copy.deepcopy(distribution), pickle.loads(pickle.dumps(distribution))):
        assert other.batch_shape == (3, 4) and other.flow is not conditional
        close(other.log_prob(x), distribution.log_prob(x))


def test_scoring_a_draw_costs_nothing_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    flow = perturbed(flows.IAF(D, **SMALL))
    distribution = as_distribution(flow)
    scored = []
    original = flows.Flow.log_prob
    monkeypatch.setattr(flows.Flow, "log_prob", lambda self, *a: scored.append(1) or original(self, *a))
    x = distribution.rsample((2,))
    close(distribution.log_prob(x), original(flow, x))
    assert not scored
    with torch.no_grad():
        next(flow.parameters()).add_(0.5)
    close(distribution.log_prob(x), original(flow, x))
    with torch.no_grad():
        x = distribution.rsample((2,))
    assert distribution.log_prob(x).requires_grad and len(scored) == 2


def test_support_is_where_the_data_lie() -> None:
    bounded = flows.MAF(2, preprocess=[flows.Bounds([0.0, None], [1.0, None])], **SMALL)
    distribution = as_distribution(bounded)
    inside = distribution.support.check(torch.tensor([[0.5, 7.0], [-0.1, 0.0], [1.1, 0.0]]))
    assert inside.tolist() == [True, False, False]
    assert distribution.support.check(distribution.sample((50,))).all()
    images = as_distribution(flows.RealNVP(shape=(1, 2, 2), preprocess=[flows.UnitInterval(256), flows.Logit(0.01)], **SMALL))
    assert images.event_shape == (1, 2, 2) and images.support.event_dim == 3
    assert images.support.check(images.sample((5,))).all() and not images.support.check(torch.full((1, 2, 2), 300.0))
    plain = as_distribution(flows.MAF(2, **SMALL)).support
    assert plain.event_dim == 1 and plain.check(torch.tensor([-1e9, 1e9])) and not plain.check(torch.tensor([0.0, math.nan]))


def test_a_base_without_gradients_has_no_rsample() -> None:
    distribution = as_distribution(flows.MAF(D, base={"base": "MixtureOfNormals", "components": 2}, **SMALL))
    assert not distribution.has_rsample and distribution.sample((2,)).shape == (2, D)
    with pytest.raises(NotImplementedError, match="rsample: MixtureOfNormals has no samples with gradients"):
        distribution.rsample()


def test_other_objects_are_named() -> None:
    with pytest.raises(TypeError, match="of: expected a Flow or a Transform, found Linear"):
        as_transform(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flow: expected a Flow, found Scaling"):
        as_distribution(flows.Scaling(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flow: expected a base that tells its features, found Distribution"):
        as_distribution(flows.Flow(flows.Distribution(), flows.Scaling(2)))


# In Pyro: z ~ N(0, I), y ~ N(A z, 0.5^2 I), whose posterior and evidence are known.
A, SIGMA = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]]), 0.5
Y = torch.tensor([1.0, -0.5, 0.7])


def evidence() -> float:
    covariance = A @ A.T + SIGMA**2 * torch.eye(3)
    return torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(Y).item()


@pytest.mark.parametrize("view", ["distribution", "transform"])
def test_a_flow_is_a_guide_of_svi(view: str) -> None:
    pyro = pytest.importorskip("pyro", reason="pyro is not installed")
    from pyro import distributions as dist
    from pyro.infer import SVI, Trace_ELBO

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    flow = flows.MAF(2, transforms=1, hidden_features=(8,), base={"base": "DiagonalNormal"})
    transform = as_transform(flow)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z @ A.T, SIGMA).to_event(1), obs=Y)

    def guide() -> None:
        if view == "distribution":
            pyro.module("flow", flow)
            pyro.sample("z", as_distribution(flow))
        else:
            pyro.module("flow", transform)
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(torch.zeros(2), torch.ones(2)), [transform]))

    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 3e-2}), elbo)
    losses = [svi.step() for _ in range(150)]
    found = -sum(losses[-20:]) / 20
    # A bound, but for the noise of 1280 draws.
    assert losses[0] > losses[-1] + 1 and evidence() - 0.05 < found < evidence() + 0.02, (found, evidence())
    precision = A.T @ A / SIGMA**2 + torch.eye(2)
    mean = torch.linalg.solve(precision, A.T @ Y / SIGMA**2)
    with torch.no_grad():
        drawn = flow.sample(4000) if view == "distribution" else transform(torch.randn(4000, 2))
    assert (drawn.mean(0) - mean).abs().max() < 0.05
    assert (torch.cov(drawn.T) - precision.inverse()).abs().max() < 0.05


def test_a_flow_is_a_prior_of_a_model_of_pyro(conditional: flows.Flow) -> None:
    pyro = pytest.importorskip("pyro", reason="pyro is not installed")
    from pyro import distributions as dist
    from pyro import poutine

    context = torch.randn(4, 2, dtype=torch.float64)

    def model() -> Tensor:
        with pyro.plate("rows", 4):
            return pyro.sample("x", as_distribution(conditional, context))

    trace = poutine.trace(model).get_trace()
    x = trace.nodes["x"]["value"]
    close(torch.as_tensor(trace.log_prob_sum()), conditional.log_prob(x, context).sum())
    dist.conditional.ConditionalTransform.register(type(as_transform(conditional)))
    theirs = dist.ConditionalTransformedDistribution(normal(), [as_transform(conditional)]).condition(context)
    close(theirs.log_prob(x), conditional.log_prob(x, context))
