from __future__ import annotations

import json
import math

import pytest
import torch

from fastgen.flows import Flow, Inverse, PlanarFlow, PlanarTransform, RadialFlow, RadialTransform, Standardise, StandardNormal

every_flow = pytest.mark.parametrize("kind", [PlanarFlow, RadialFlow])
every_transform = pytest.mark.parametrize("kind", [PlanarTransform, RadialTransform])


@every_transform
def test_both_directions(kind: type) -> None:
    torch.manual_seed(0)
    transform = kind(3, 4, dtype=torch.float64)
    x, before = torch.randn(2, 5, 3).double(), torch.randn(2, 5).double()
    z, log_det = transform(x, log_det=before)
    back, total = transform.inverse(z, log_det=log_det)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(total, before)
    torch.testing.assert_close(Inverse(transform)(z)[0], x)
    assert kind(**transform.config).layers == 4


def test_planar_layers_begin_away_from_where_they_have_no_limit() -> None:
    torch.manual_seed(0)
    transform = PlanarTransform(50, 8)
    torch.testing.assert_close(transform.w.norm(dim=-1), torch.ones(8))
    x = torch.randn(100, 50)
    z, log_det = transform(x)
    assert (z - x).norm(dim=-1).max() < 1 and log_det.abs().max() < 1


@every_flow
def test_the_density_integrates_to_1_and_is_that_of_its_samples(kind: type) -> None:
    torch.manual_seed(1)
    flow = kind(2, transforms=6, dtype=torch.float64)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    axis = torch.linspace(-12, 12, 481).double()
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
        # A sum over a grid of steps of 0.05, along which planar layers bend; radial ones have cones at their centres.
        assert abs(float(mass) - 1) < (1e-4 if kind is PlanarFlow else 2e-3)
        x, log_prob = flow.sample_and_log_prob(50)
        torch.testing.assert_close(log_prob, flow.log_prob(x))


@every_flow
@pytest.mark.parametrize("inverse", [False, True])
def test_training_by_maximum_likelihood(kind: type, inverse: bool) -> None:
    """In either direction, a density of two clusters is better fitted than by the best normal."""
    torch.manual_seed(0)
    x = torch.randn(1000, 2) * 0.4 + torch.tensor([[1.0, 0.0]]) * (2 * torch.randint(0, 2, (1000, 1)) - 1)
    flow = kind(2, transforms=8)
    if inverse:
        flow = Flow(StandardNormal(2), Inverse(flow.transform[0]))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    normal = sum(0.5 * math.log(2 * math.pi * math.e * float(v)) for v in x.var(0))
    assert loss.item() < normal - 0.15


@every_flow
def test_a_flow_is_built_again_from_its_config(kind: type) -> None:
    flow = kind(3, transforms=5, preprocess=[Standardise(3)], base={"base": "DiagonalNormal"})
    config = json.loads(json.dumps(flow.config))
    again = kind(**config)
    again.load_state_dict(flow.state_dict())
    x = torch.randn(7, 3)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert again.config == flow.config


@every_flow
def test_errors(kind: type) -> None:
    for options, name in (
        ({"features": 0}, "features"),
        ({"transforms": 0}, "transforms"),
        ({"context_features": 2}, "context_features"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            kind(**{"features": 3, **options})
    with pytest.raises(TypeError, match="base"):
        kind(3, base=type("Own", (StandardNormal,), {})(3)).config  # noqa: B018
