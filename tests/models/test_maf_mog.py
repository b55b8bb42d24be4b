from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from fastgen.flows import BatchNorm, Bounds, Standardise
from fastgen.models import MAFMoG, MixtureMADE

D, F = 3, 2
DOUBLE = torch.float64


def model(features: int = D, **options) -> MAFMoG:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    sizes = {"components": 3, "transforms": 2, "hidden_features": (16,), "activation": "tanh"}
    flow = MAFMoG(features, **{**sizes, **options}, dtype=DOUBLE)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow.eval()


@pytest.mark.parametrize("context_features", [0, F])
def test_is_a_flow_over_a_mixture_made(context_features: int) -> None:
    flow = model(context_features=context_features)
    x = torch.randn(5, D, dtype=DOUBLE)
    context = torch.randn(5, F, dtype=DOUBLE) if context_features else None
    made = flow.base.made
    assert isinstance(made, MixtureMADE)
    z, log_det = flow.transform(x, context)
    torch.testing.assert_close(flow.log_prob(x, context), made.log_prob(z, context) + log_det, rtol=1e-12, atol=1e-12)
    y, log_prob = flow.sample_and_log_prob((2,), context)
    assert not y.requires_grad and y.shape == ((2, 5, D) if context_features else (2, D))
    torch.testing.assert_close(flow.log_prob(y, context).detach(), log_prob, rtol=1e-9, atol=1e-9)
    with pytest.raises(NotImplementedError, match="MixtureBase"):
        flow.rsample(2, context)
    assert all(g is not None for g in torch.autograd.grad(flow.log_prob(x, context).sum(), list(flow.parameters())))


def test_the_density_integrates_to_one() -> None:
    flow = model(1, context_features=F)
    x = torch.linspace(-60, 60, 40001, dtype=DOUBLE)[:, None]
    density = flow.log_prob(x, torch.randn(F, dtype=DOUBLE)).detach().exp()
    # The trapezoid rule on a smooth density that has died away at the edges.
    assert abs(float(density.sum()) * 120 / 40000 - 1) < 1e-6


def test_samples_have_the_density() -> None:
    flow = model(2)
    x = flow.sample(20000, generator=torch.Generator().manual_seed(1))
    # Importance weights of a wider normal average to one.
    wide = torch.distributions.Normal(x.mean(0), 2 * x.std(0))
    y = wide.sample((20000,))
    weights = (flow.log_prob(y) - wide.log_prob(y).sum(-1)).exp().detach()
    assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / math.sqrt(20000)
    # The mean log-density of samples is minus the entropy, which the same weights estimate.
    log_prob = flow.log_prob(x).detach()
    entropy = weights * flow.log_prob(y).detach()
    error = math.hypot(float(log_prob.std()), float(entropy.std())) / math.sqrt(20000)
    assert abs(float(log_prob.mean() - entropy.mean())) < 5 * error


@pytest.mark.parametrize("context_shape", [(F,), (4, F), (4, 1, F)])
def test_contexts_have_their_own_samples(context_shape: tuple[int, ...]) -> None:
    flow = model(context_features=F)
    context = torch.randn(context_shape, dtype=DOUBLE)
    x = flow.sample((3,), context)
    assert x.shape == (3, *context_shape[:-1], D) and len(x.flatten().unique()) == x.numel()
    z = flow.base.sample((3, 4, 5), context.mean(-2, keepdim=True) if len(context_shape) == 2 else context)
    assert z.shape == (3, 4, 5, D) and len(z.flatten().unique()) == z.numel()


@pytest.mark.parametrize(
    ("order", "degrees"), [("reverse", [[1, 2, 3], [3, 2, 1], [1, 2, 3]]), ("random", None)], ids=["reverse", "random"]
)
def test_the_base_continues_the_orders(order: str, degrees: list[list[int]] | None) -> None:
    features = 3 if degrees else 9
    flow = model(features, order=order, seed=4)
    found = [made.degrees.tolist() for made in (*(t.made for t in flow.transform), flow.base.made.made)]
    assert found == degrees if degrees else len({tuple(order) for order in found}) == 3


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_config_and_state_dict_build_the_same_flow(order: str) -> None:
    data = torch.rand(50, D, dtype=DOUBLE)
    flow = model(
        order=order,
        hidden_degrees="random",
        context_features=F,
        preprocess=[Bounds(0.0, 1.0, D), Standardise.fit(Bounds(0.0, 1.0, D).double()(data)[0])],
        batch_norm=True,
        embedding={"features": 5, "hidden_features": [7]},
        standardise_context=True,
    )
    assert isinstance(flow.transform[-1], BatchNorm) and not flow.discrete
    config = json.loads(json.dumps(flow.config))
    assert config["components"] == 3 and config["context_features"] == F and "base" not in config
    twin = MAFMoG(**config).double().eval()
    twin.load_state_dict(flow.state_dict())
    context = torch.randn(50, F, dtype=DOUBLE)
    for other in (twin, copy.deepcopy(flow)):
        assert torch.equal(other.log_prob(data, context), flow.log_prob(data, context)) and other.config == flow.config


def test_finds_clusters_that_a_normal_base_cannot() -> None:
    """Two separated clusters, one feature: affine transforms of one feature are affine, so only the base tells them apart."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(500, 1) - 6, torch.randn(500, 1) + 6]) / 6
    flow = MAFMoG(1, components=4, transforms=1, hidden_features=(8,))
    optimizer = torch.optim.Adam(flow.parameters(), 0.03)
    for _ in range(200):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
    truth = math.log(2) + 0.5 * math.log(2 * math.pi * math.e) - math.log(6)
    assert loss.item() < truth + 0.1


def test_compiles_into_one_graph() -> None:
    flow = model(context_features=F).float()
    x, context = torch.randn(6, D), torch.randn(6, F)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), flow(x, context))
    grads, truths = (torch.autograd.grad(f(x, context).sum(), list(flow.parameters())) for f in (compiled, flow))
    for grad, truth in zip(grads, truths, strict=True):
        torch.testing.assert_close(grad, truth)


def test_an_embedding_of_ones_own() -> None:
    flow = model(context_features=F, embedding=nn.Linear(F, 4).double())
    assert flow.log_prob(torch.randn(5, D, dtype=DOUBLE), torch.randn(F, dtype=DOUBLE)).shape == (5,)
    with pytest.raises(TypeError, match="embedding: expected embeddings of MLP, ClassEmbedding for a config, found Linear"):
        _ = flow.config


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"components": 0}, ValueError, "components: expected at least 1, found 0"),
        ({"transforms": 0}, ValueError, "transforms: expected at least 1, found 0"),
        ({"order": "natural"}, ValueError, "order: expected one of reverse, random, found 'natural'"),
        ({"base": None}, TypeError, "base"),
        ({"masks": 2}, TypeError, "masks"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MAFMoG(**{"features": 2, "hidden_features": (8,), **options})
