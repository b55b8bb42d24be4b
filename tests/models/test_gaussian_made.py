from __future__ import annotations

import json

import pytest
import torch

from fastgen.models import GaussianMADE
from fastgen.ops import ScaleMap


def model(features: int = 4, **options) -> GaussianMADE:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    made = GaussianMADE(features, **{"hidden_features": (16,), "activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.4)
    return made


@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("options", [{}, {"order": "random", "scale_map": ScaleMap("clamp", lo=-1.0, hi=1.0)}])
def test_log_prob_is_that_of_the_conditionals(context_features: int, options: dict) -> None:
    made = model(context_features=context_features, **options)
    x = torch.randn(6, 4, dtype=torch.float64)
    context = torch.randn(6, 2, dtype=torch.float64) if context_features else None
    mean, log_scale = made.made(x, context).unbind(-1)
    expected = torch.distributions.Normal(mean, made.conditional.scale_map(log_scale).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(made.log_prob(x, context), expected, rtol=1e-11, atol=1e-11)
    y, log_prob = made.sample_and_log_prob(5, context)
    torch.testing.assert_close(made.log_prob(y, context), log_prob, rtol=1e-9, atol=1e-9)


def test_the_density_integrates_to_one() -> None:
    made = model(1)
    x = torch.linspace(-40, 40, 20001, dtype=torch.float64)[:, None]
    assert abs(float(made.log_prob(x).detach().exp().sum()) * 80 / 20000 - 1) < 1e-9


def test_samples_have_mean_and_scale_of_their_conditionals() -> None:
    made = model()
    x = made.sample(20000)
    mean, log_scale = made.made(x).detach().unbind(-1)
    noise = (x - mean) / made.conditional.scale_map(log_scale).exp()
    # The mean of 20000 normals has a standard deviation of 0.007, their deviation one of 0.005.
    assert (noise.mean(0).abs() < 0.036).all() and ((noise.std(0) - 1).abs() < 0.026).all()


@pytest.mark.parametrize("rows", [3, 40])
def test_log_probs_come_with_the_samples(monkeypatch, rows: int) -> None:  # type: ignore[no-untyped-def]
    made = model(order="random", context_features=2)
    context = torch.randn(rows, 2, dtype=torch.float64, requires_grad=True)
    wanted = [context, *made.parameters()]

    def gradients(x: torch.Tensor, log_prob: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(x.square().sum() + (log_prob * torch.arange(rows)).sum(), wanted)

    x = made.rsample((), context, generator=torch.Generator().manual_seed(0))
    expected = gradients(x, made.log_prob(x, context))
    # No pass of the network beside that of the samples.
    monkeypatch.setattr(made.made, "evaluate", None)
    again, log_prob = made.sample_and_log_prob((), context, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, x)
    torch.testing.assert_close(gradients(again, log_prob), expected, rtol=1e-9, atol=1e-9)


def test_config_builds_the_same_model() -> None:
    made = model(order="random", hidden_degrees="random", scale_map=ScaleMap("tanh", c=3.0))
    twin = GaussianMADE(**json.loads(json.dumps(made.config))).double()
    twin.load_state_dict(made.state_dict())
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(twin.log_prob(x), made.log_prob(x))
