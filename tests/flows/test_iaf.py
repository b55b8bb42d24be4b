from __future__ import annotations

import json

import pytest
import torch

from fastgen import backends
from fastgen.flows import IAF, MAF, BatchNorm, Inverse, Logit, Standardise
from fastgen.train import fit


def iaf(features: int = 3, **options) -> IAF:  # type: ignore[no-untyped-def]
    return IAF(features, **{"transforms": 3, "hidden_features": (16,), "activation": "tanh", **options})


@pytest.mark.parametrize("context_features", [0, 2])
def test_log_prob_is_that_of_the_transform(context_features: int, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(iaf(context_features=context_features))
    x = torch.randn(5, 3, dtype=torch.float64)
    context = torch.randn(5, 2, dtype=torch.float64) if context_features else None
    check_transform(flow.transform, x, context)
    z, log_det = flow.transform(x, context)
    normal = torch.distributions.Normal(torch.zeros_like(z), 1.0)
    torch.testing.assert_close(flow.log_prob(x, context), normal.log_prob(z).sum(-1) + log_det, rtol=1e-12, atol=1e-12)


def test_it_is_a_maf_with_its_directions_swapped() -> None:
    torch.manual_seed(0)
    one = iaf(transforms=1).double()
    torch.manual_seed(0)
    other = MAF(3, transforms=1, hidden_features=(16,), activation="tanh").double()
    assert isinstance(one.transform[0], Inverse)
    x = torch.randn(6, 3, dtype=torch.float64)
    for swapped, plain in zip(one.transform(x), other.transform.inverse(x), strict=True):
        torch.testing.assert_close(swapped, plain, rtol=1e-12, atol=1e-12)


def test_samples_and_their_log_prob_agree_with_log_prob(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(iaf(5, context_features=2), std=0.2)
    context = torch.randn(4, 2, dtype=torch.float64)
    x, log_prob = flow.sample_and_log_prob(6, context)
    assert x.shape == (6, 4, 5)
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=1e-8, atol=1e-8)


def test_the_gradient_of_log_prob_is_the_references(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(iaf(4, residual=True, direct=True, preprocess=[Logit(0.01)], context_features=1), std=0.3)
    x = torch.rand(7, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(7, 1, dtype=torch.float64, requires_grad=True)
    inputs = [x, context, *flow.parameters()]
    found = torch.autograd.grad(flow.log_prob(x, context).sum(), inputs)
    with backends.use("reference"):
        truth = torch.autograd.grad(flow.log_prob(x, context).sum(), inputs)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)


def test_it_trains_by_maximum_likelihood() -> None:
    torch.manual_seed(0)
    rows = torch.randn(600, 3) @ torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, -0.7], [0.0, 0.0, 0.5]])
    flow = iaf(hidden_features=(32,))
    records = fit(flow, rows, epochs=40, batch_size=50, learning_rate=5e-3)
    covariance = torch.cov(rows.T)
    gaussian = torch.distributions.MultivariateNormal(rows.mean(0), covariance).log_prob(rows).mean() / 3
    # The data is Gaussian; 60 held-out rows of 3 features tell its likelihood to about 0.1.
    assert max(r.valid for r in records) > float(gaussian) - 0.2


def test_its_config_builds_it_again() -> None:
    options = {"preprocess": [Standardise(3)], "batch_norm": True, "order": "random", "seed": 4, "context_features": 2}
    flow = iaf(**options, embedding={"features": 3, "hidden_features": (5,)}).eval()
    assert sum(isinstance(t, BatchNorm) for t in flow.transform) == 3
    again = IAF(**json.loads(json.dumps(flow.config))).eval()
    again.load_state_dict(flow.state_dict())
    x, context = torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))


@pytest.mark.parametrize("kind", [MAF, IAF])
def test_samples_in_pieces(kind: type[MAF | IAF]) -> None:
    torch.manual_seed(0)
    flow, context = kind(3, hidden_features=(8,), context_features=1, transforms=2), torch.randn(2, 1)
    x = flow.sample(10, context, generator=torch.Generator().manual_seed(1), batch_size=4)
    assert x.shape == (10, 2, 3)
    first = flow.sample(4, context, generator=torch.Generator().manual_seed(1))
    assert torch.equal(x[:4], first)
    assert flow.sample((2, 5), context, batch_size=3).shape == (2, 5, 2, 3)
    assert flow.sample(0, context, batch_size=3).shape == (0, 2, 3)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, found 0"):
        flow.sample(10, context, batch_size=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trained_flow_is_inverted_to_what_its_conditioning_allows(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = torch.randn(400, 6).cumsum(1).to(dtype)
    flow = MAF(6, transforms=4, hidden_features=(32, 32), dtype=dtype)
    fit(flow, rows, epochs=20, batch_size=50, learning_rate=3e-3)
    with torch.no_grad():
        z, log_det = flow.transform(rows)
        back, back_log_det = flow.transform.inverse(z)
    # Four transforms, whose scales multiply errors by what their Jacobians stretch: at most e^3 here.
    room = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(back, rows, rtol=room, atol=room * 10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=room, atol=room * 100)
