from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from fastgen.flows import MAF, Standardise
from fastgen.models import GaussianAutoregressive, GaussianMADE
from fastgen.train import fit

HIDDEN = pytest.mark.parametrize("hidden", [(), (16,), (16, 12)], ids=str)


def model(features: int = 4, **options) -> GaussianAutoregressive:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    flow = GaussianAutoregressive(features, **{"activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.4)
    return flow


def parameters_of(flow: GaussianAutoregressive, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """mu and alpha (..., D)."""
    block = flow.transform[0]
    mean, raw = block.made(x, context).unbind(-1)  # type: ignore[operator,union-attr]
    return mean, block.scale_map(raw)  # type: ignore[operator,union-attr]


@HIDDEN
@pytest.mark.parametrize("context_features", [0, 2])
def test_log_prob_is_that_of_the_conditionals(hidden: tuple[int, ...], context_features: int) -> None:
    flow = model(hidden_features=hidden, context_features=context_features)
    x = torch.randn(6, 4, dtype=torch.float64)
    context = torch.randn(6, 2, dtype=torch.float64) if context_features else None
    mean, alpha = parameters_of(flow, x, context)
    expected = torch.distributions.Normal(mean, alpha.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(flow.log_prob(x, context), expected, rtol=1e-12, atol=1e-12)


@HIDDEN
def test_samples_are_the_recurrence(hidden: tuple[int, ...]) -> None:
    flow = model(hidden_features=hidden)
    x = flow.sample(7, generator=torch.Generator().manual_seed(1))
    z = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros_like(z)
    for i in range(4):
        mean, alpha = parameters_of(flow, expected)
        expected = expected.clone()
        expected[:, i] = alpha[:, i].exp() * z[:, i] + mean[:, i]
    torch.testing.assert_close(x, expected.detach(), rtol=1e-12, atol=1e-12)


def test_without_hidden_layers_mean_and_log_scale_are_linear() -> None:
    flow = model(scale_map={"kind": "identity"})
    a, b = torch.randn(2, 4, dtype=torch.float64)
    for linear in zip(*(parameters_of(flow, x) for x in (a, b, a + b, torch.zeros_like(a))), strict=True):
        of_a, of_b, of_sum, of_none = linear
        torch.testing.assert_close(of_sum - of_none, of_a + of_b - 2 * of_none, rtol=1e-12, atol=1e-12)


@HIDDEN
@pytest.mark.parametrize("order", ["natural", "random"])
def test_it_is_a_maf_of_one_transform_and_the_density_of_a_gaussian_made(hidden: tuple[int, ...], order: str) -> None:
    flow = model(hidden_features=hidden, order=order, seed=3)
    maf = MAF(
        4, transforms=1, hidden_features=hidden, activation="tanh", order={"natural": "reverse"}.get(order, order), seed=3
    ).double()
    maf.load_state_dict(flow.state_dict())
    x = torch.randn(6, 4, dtype=torch.float64)
    assert torch.equal(maf.log_prob(x), flow.log_prob(x))
    degrees = flow.transform[0].made.degrees  # type: ignore[union-attr]
    made = GaussianMADE(4, hidden_features=hidden, activation="tanh", order=degrees).double()
    made.made.load_state_dict(flow.transform[0].made.state_dict())  # type: ignore[union-attr]
    torch.testing.assert_close(made.log_prob(x), flow.log_prob(x), rtol=1e-12, atol=1e-12)


def test_samples_have_gradients() -> None:
    flow = model()
    x, log_prob = flow.sample_and_log_prob(8)
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    flow.zero_grad()
    flow.rsample(8).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in flow.parameters())


def test_it_finds_a_linear_regression() -> None:
    torch.manual_seed(0)
    z = torch.randn(4000, 2)
    x = torch.stack([2 * z[:, 0] + 1, 0.5 * z[:, 1] + 3 * z[:, 0]], -1)
    flow = GaussianAutoregressive(2)
    fit(flow, x, epochs=120, learning_rate=0.03)
    flow.double()
    mean, alpha = parameters_of(flow, torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    # x_2 given x_1 has mean 1.5 (x_1 - 1) and deviation 1/2; 3600 rows tell both to a hundredth or so.
    torch.testing.assert_close(mean[:, 1].detach(), torch.tensor([-1.5, 0.0], dtype=torch.float64), rtol=0, atol=0.06)
    torch.testing.assert_close(alpha[1, 1].exp().item(), 0.5, rtol=0.06, atol=0)


def test_config_builds_the_same_model() -> None:
    flow = model(order="random", preprocess=[Standardise(4)], context_features=2, hidden_features=(8,))
    twin = GaussianAutoregressive(**json.loads(json.dumps(flow.config))).double()
    twin.load_state_dict(flow.state_dict())
    x, context = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    assert torch.equal(twin.log_prob(x, context), flow.log_prob(x, context))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="order: expected one of natural, random, found 'reverse'"):
        GaussianAutoregressive(3, order="reverse")
    with pytest.raises(TypeError, match="transforms"):
        GaussianAutoregressive(3, transforms=2)
