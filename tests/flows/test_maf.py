from __future__ import annotations

import copy
import json
import math
import pickle

import pytest
import torch
from torch import Tensor

from fastgen.flows import (
    MAF,
    Composed,
    Distribution,
    Flow,
    Logit,
    MaskedAutoregressiveTransform,
    Permutation,
    Standardise,
    StandardNormal,
    Transform,
    UnitInterval,
)


def maf(features: int = 3, **options) -> MAF:  # type: ignore[no-untyped-def]
    return MAF(features, **{"transforms": 3, "hidden_features": (16,), "activation": "tanh", **options})


def unfused(flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    z, log_det = flow.transform(x, context)
    return torch.distributions.Normal(torch.zeros_like(z), 1.0).log_prob(z).sum(-1) + log_det


@pytest.mark.parametrize("context_features", [0, 2])
def test_the_fused_log_prob_equals_the_unfused_one(context_features: int, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(context_features=context_features, preprocess=[Logit(0.01), Permutation.reverse(3)]))
    x = torch.rand(7, 3, dtype=torch.float64)
    context = torch.randn(7, 2, dtype=torch.float64) if context_features else None
    torch.testing.assert_close(flow.log_prob(x, context), unfused(flow, x, context), rtol=1e-12, atol=1e-12)
    inputs = (x.requires_grad_(), *flow.parameters())
    grads = torch.autograd.grad(flow.log_prob(x, context).sum(), inputs)
    expected = torch.autograd.grad(unfused(flow, x, context).sum(), inputs)
    for grad, truth in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, truth, rtol=1e-9, atol=1e-9)


def test_another_base_is_asked_for_its_log_prob(randomised) -> None:  # type: ignore[no-untyped-def]
    class Wide(Distribution):
        def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
            return torch.distributions.Normal(torch.zeros_like(z), 3.0).log_prob(z).sum(-1)

    transform = randomised(maf()).transform
    x = torch.randn(5, 3, dtype=torch.float64)
    z, log_det = transform(x)
    torch.testing.assert_close(Flow(Wide(), transform).log_prob(x), Wide().log_prob(z) + log_det)


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("context_features", [0, 2])
def test_the_density_integrates_to_one(features: int, context_features: int, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(features, context_features=context_features, order="random"))
    context = torch.randn(2, dtype=torch.float64) if context_features else None
    samples = flow.sample(4000, context)
    middle, spread = samples.mean(0), samples.std(0)
    n, width = (20001, 60) if features == 1 else (501, 20)
    axis = torch.linspace(-width / 2, width / 2, n, dtype=torch.float64)
    axes = [m + s * axis for m, s in zip(middle, spread, strict=True)]
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(*axes).view(-1, features), context).exp()
    # The trapezoid rule on a smooth density that has died away at the edges.
    total = density.sum() * spread.prod() * (width / (n - 1)) ** features
    assert abs(float(total) - 1) < 2e-3


def test_the_density_of_pixels_is_per_grey_level(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(1, preprocess=[UnitInterval(16), Logit(0.0)]))
    n = 20000
    middles = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) * 16 / n
    total = flow.log_prob(middles).detach().exp().sum() * 16 / n
    # The midpoint rule on a density that dies away, smoothly, at both ends of [0, 16].
    assert abs(float(total) - 1) < 1e-4


def test_samples_have_the_density(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(2))
    x, log_prob = flow.sample_and_log_prob(20000)
    torch.testing.assert_close(log_prob, flow.log_prob(x), rtol=1e-9, atol=1e-9)
    # Importance weights of a wider normal average to one.
    middle, spread = x.mean(0).detach(), 2 * x.std(0).detach()
    wide = torch.distributions.Normal(middle, spread)
    y = wide.sample((20000,))
    weights = (flow.log_prob(y) - wide.log_prob(y).sum(-1)).exp().detach()
    assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / math.sqrt(20000)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_orders(order: str) -> None:
    flow = maf(6, order=order, seed=1)
    orders = [t.made.degrees.tolist() for t in flow.transform]
    if order == "reverse":
        assert orders == [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]]
    else:
        assert len({tuple(o) for o in orders}) == 3 and all(sorted(o) == [1, 2, 3, 4, 5, 6] for o in orders)


@pytest.mark.parametrize("n", [0, 4, (), (2, 3)])
@pytest.mark.parametrize("context_shape", [None, (2,), (5, 2), (3, 1, 2)])
def test_sample_shapes(n, context_shape) -> None:  # type: ignore[no-untyped-def]
    flow = maf(context_features=0 if context_shape is None else 2)
    context = None if context_shape is None else torch.randn(context_shape)
    batch = (n,) if isinstance(n, int) else n
    shape = (*batch, *(() if context_shape is None else context_shape[:-1]))
    x = flow.sample(n, context)
    assert x.shape == (*shape, 3) and not x.requires_grad
    assert flow.rsample(n, context).requires_grad
    y, log_prob = flow.sample_and_log_prob(n, context)
    assert y.shape == (*shape, 3) and log_prob.shape == shape
    assert flow.log_prob(y, context).shape == shape
    torch.testing.assert_close(flow.log_prob(y, context), log_prob, rtol=1e-4, atol=1e-4)


def test_log_prob_broadcasts_data_and_context(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(context_features=2))
    x, context = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 1, 2, dtype=torch.float64)
    grid = flow.log_prob(x, context)
    assert grid.shape == (5, 4)
    torch.testing.assert_close(grid[3, 2], flow.log_prob(x[2], context[3, 0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flow.log_prob(x[1], context[:, 0]), grid[:, 1], rtol=1e-12, atol=1e-12)


def test_the_context_moves_every_feature(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf(transforms=1, context_features=1))
    z = torch.zeros(3, dtype=torch.float64)
    here, there = (flow.transform.inverse(z, torch.tensor([c], dtype=torch.float64))[0] for c in (-1.0, 1.0))
    assert (here != there).all()


def test_seeds_and_generators_rule_everything() -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(11)
        flow = maf(5, order="random", hidden_degrees="random")
        return [*flow.parameters(), flow.sample(3), flow.sample(3, generator=torch.Generator().manual_seed(5))]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("options", [{}, {"order": "random", "hidden_degrees": "random", "residual": True, "direct": True}])
def test_config_and_state_dict_build_the_same_flow(options: dict) -> None:
    torch.manual_seed(0)
    data = torch.rand(50, 3)
    before = [Logit(0.01), Standardise.fit(Logit(0.01)(data)[0]), Permutation.random(3)]
    flow = maf(context_features=2, preprocess=before, **options)
    config = json.loads(json.dumps(flow.config))
    twin = MAF(**config)
    twin.load_state_dict(flow.state_dict())
    context = torch.randn(50, 2)
    assert torch.equal(twin.log_prob(data, context), flow.log_prob(data, context))
    assert twin.config == flow.config


def test_a_transform_of_ones_own_preprocesses_but_has_no_config() -> None:
    class Own(Transform):
        def forward(self, x, context=None, *, log_det=None):  # type: ignore[no-untyped-def]
            return x, torch.zeros(x.shape[:-1])

    flow = maf(preprocess=[Own()])
    assert flow.log_prob(torch.randn(2, 3)).shape == (2,)
    with pytest.raises(TypeError, match=r"preprocess: expected transforms of Logit.*found Own"):
        _ = flow.config


def test_preprocessing_is_part_of_the_density(randomised) -> None:  # type: ignore[no-untyped-def]
    standardise = Standardise.fit(5 + 3 * torch.randn(100, 3, dtype=torch.float64))
    flow = maf().double()
    with_it = Flow(StandardNormal(3), Composed([standardise, *flow.transform]))
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = flow.log_prob(standardise(x)[0]) - standardise.std.log().sum()
    torch.testing.assert_close(with_it.log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_a_flow_starts_near_its_base() -> None:
    torch.manual_seed(0)
    flow = MAF(20, hidden_features=(64, 64))
    x = torch.randn(100, 20)
    torch.testing.assert_close(flow.log_prob(x), StandardNormal(20).log_prob(x), rtol=0.05, atol=0)


def test_training_finds_a_correlated_normal() -> None:
    torch.manual_seed(0)
    truth = torch.distributions.MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 1.2], [1.2, 1.0]]))
    data, held_out = truth.sample((2000,)), truth.sample((2000,))
    flow = MAF(2, transforms=2, hidden_features=(16,))
    optimizer = torch.optim.Adam(flow.parameters(), 0.02)
    for i in range(150):
        optimizer.zero_grad()
        loss = -flow(data[200 * (i % 10) : 200 * (i % 10 + 1)]).mean()
        loss.backward()
        optimizer.step()
    gap = truth.log_prob(held_out).mean() - flow.log_prob(held_out).mean()
    assert gap < 0.05


def test_scores_can_be_trained_on(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(flow.log_prob, (x,))
    (score,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    parameters = list(flow.parameters())
    grads = torch.autograd.grad(score.square().sum(), parameters, allow_unused=True)
    z, log_det = flow.transform(x)
    (score,) = torch.autograd.grad((-0.5 * z.square().sum(-1) + log_det).sum(), x, create_graph=True)
    expected = torch.autograd.grad(score.square().sum(), parameters, allow_unused=True)
    for grad, truth in zip(grads, expected, strict=True):
        if truth is not None:
            torch.testing.assert_close(grad, truth, rtol=1e-9, atol=1e-9)


def test_dtypes() -> None:
    torch.manual_seed(0)
    flow = maf(4)
    x = torch.randn(16, 4)
    expected = flow.double().log_prob(x.double())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        log_prob = copy.deepcopy(flow).to(dtype).log_prob(x.to(dtype))
        assert log_prob.dtype == torch.float32
        # Data of size 3 rounded at every transform: an error of 3 eps in x moves x^2 / 2 by 9 eps, feature by feature.
        torch.testing.assert_close(log_prob.double(), expected, rtol=0, atol=4 * 9 * 4 * torch.finfo(dtype).eps)
        assert copy.deepcopy(flow).to(dtype).sample(2).dtype == dtype


def test_autocast() -> None:
    torch.manual_seed(0)
    flow = maf(4, context_features=2)
    x, context = torch.randn(16, 4), torch.randn(16, 2)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = flow.log_prob(x, context)
        samples = flow.sample(3, context)
    assert log_prob.dtype == torch.float32 and samples.dtype == torch.float32
    torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=0, atol=0.1)
    log_prob.mean().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_copies_and_pickles() -> None:
    flow = maf()
    x = torch.randn(4, 3)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin.log_prob(x), flow.log_prob(x))


def test_functional_call_and_per_sample_shapes(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(maf())
    x = torch.randn(4, 3, dtype=torch.float64)
    halved = {name: p / 2 for name, p in flow.named_parameters()}
    called = torch.func.functional_call(flow, halved, (x,))
    flow.load_state_dict(halved, strict=False)
    assert torch.equal(called, flow.log_prob(x))
    assert flow.log_prob(x[0]).shape == () and flow.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("context_features", [0, 2])
def test_log_prob_and_its_gradient_compile_into_one_graph(context_features: int) -> None:
    torch.manual_seed(0)
    flow = maf(4, context_features=context_features, preprocess=[Standardise.fit(torch.randn(9, 4))])
    x = torch.randn(6, 4)
    context = torch.randn(6, 2) if context_features else None
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), flow(x, context))
    parameters = list(flow.parameters())
    grads = torch.autograd.grad(compiled(x, context).sum(), parameters)
    for grad, truth in zip(grads, torch.autograd.grad(flow(x, context).sum(), parameters), strict=True):
        torch.testing.assert_close(grad, truth)


def test_sampling_compiles_into_one_graph() -> None:
    flow = maf(2)
    compiled = torch.compile(flow.sample, fullgraph=True, backend="aot_eager")
    assert compiled(5).shape == (5, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features: expected at least 1, found 0"),
        ({"transforms": 0}, "transforms: expected at least 1, found 0"),
        ({"order": "natural"}, "order: expected one of reverse, random, found 'natural'"),
        ({"preprocess": [{"transform": "Whiten"}]}, "preprocess: expected 'transform' to be one of Logit.*found 'Whiten'"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maf(**options)


def test_bad_calls_are_named() -> None:
    with pytest.raises(ValueError, match="n: expected at least 0 samples, found -1"):
        maf().sample(-1)
    with pytest.raises(ValueError, match=r"context: expected None, found \(2,\)"):
        maf().sample(1, torch.zeros(2))
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 3\)"):
        maf().log_prob(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"context: expected a batch that broadcasts with x's, found shape \(2, 1\) with"):
        maf(context_features=1).log_prob(torch.zeros(4, 3), torch.zeros(2, 1))
    with pytest.raises(TypeError, match="hidden"):
        maf(hidden=3)
    assert isinstance(maf().transform[0], MaskedAutoregressiveTransform)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("context_features", [0, 2])
def test_a_flow_moved_to_cuda_is_the_same(context_features: int, randomised) -> None:  # type: ignore[no-untyped-def]
    before = [Standardise.fit(torch.randn(50, 4)), Permutation.reverse(4)]
    flow = randomised(maf(4, context_features=context_features, order="random", preprocess=before))
    x = torch.randn(33, 4, dtype=torch.float64)
    context = torch.randn(33, 2, dtype=torch.float64) if context_features else None
    expected = flow.log_prob(x, context)
    truths = torch.autograd.grad(expected.sum(), list(flow.parameters()))
    flow.to("cuda")
    x, context = x.cuda(), None if context is None else context.cuda()
    log_prob = flow.log_prob(x, context)
    torch.testing.assert_close(log_prob.cpu(), expected, rtol=1e-9, atol=1e-9)
    for grad, truth in zip(torch.autograd.grad(log_prob.sum(), list(flow.parameters())), truths, strict=True):
        torch.testing.assert_close(grad.cpu(), truth, rtol=1e-8, atol=1e-8)
    draws = [flow.sample(5, context, generator=torch.Generator("cuda").manual_seed(1)) for _ in range(2)]
    assert draws[0].is_cuda and torch.equal(*draws)
    y, log_prob = flow.sample_and_log_prob(5, context)
    torch.testing.assert_close(flow.log_prob(y, context), log_prob, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_log_prob_is_captured_into_a_cuda_graph() -> None:
    torch.manual_seed(0)
    flow = maf(4, context_features=2, device="cuda")
    x, context = torch.randn(16, 4, device="cuda"), torch.randn(2, device="cuda")
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        flow.log_prob(x, context)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            captured = flow.log_prob(x, context)
    x.copy_(torch.randn(16, 4))
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, flow.log_prob(x, context).detach())
