from __future__ import annotations

import copy
import json
import math
import pickle

import pytest
import torch
from torch import Tensor, distributions, nn

from fastgen.flows import (
    BASES,
    MAF,
    ConditionalDiagonalNormal,
    DiagonalNormal,
    Distribution,
    Flow,
    MixtureOfNormals,
    StandardNormal,
    Truncated,
    Uniform,
)

D, F, K = 3, 2, 4
DOUBLE = torch.float64
BASE_OPTIONS = [
    {"base": "StandardNormal"},
    {"base": "DiagonalNormal"},
    {"base": "ConditionalDiagonalNormal", "hidden_features": [8]},
    {"base": "MixtureOfNormals", "components": K},
    {"base": "Uniform", "low": -30.0, "high": [30.0, 20.0, 25.0]},
]


def normal(features: int = D) -> DiagonalNormal:
    base = DiagonalNormal(features).double()
    nn.init.normal_(base.mean)
    nn.init.normal_(base.log_scale)
    return base


def conditional(**options) -> ConditionalDiagonalNormal:  # type: ignore[no-untyped-def]
    base = ConditionalDiagonalNormal(D, F, **options).double()
    for parameter in base.parameters():
        nn.init.normal_(parameter)
    return base


def mixture(features: int = D) -> MixtureOfNormals:
    base = MixtureOfNormals(features, K).double()
    for parameter in base.parameters():
        nn.init.normal_(parameter)
    return base


def by_torch(base: Distribution, context: Tensor | None = None) -> distributions.Distribution:
    """The same distribution in torch.distributions."""
    if isinstance(base, DiagonalNormal):
        each = distributions.Normal(base.mean, base.log_scale.exp())
    elif isinstance(base, ConditionalDiagonalNormal):
        mean, raw = base.network(context).chunk(2, -1)
        each = distributions.Normal(mean, (raw / (1 + raw.abs() / math.log(1000))).exp())
    elif isinstance(base, MixtureOfNormals):
        components = distributions.Independent(distributions.Normal(base.means, base.log_scales.exp()), 1)
        return distributions.MixtureSameFamily(distributions.Categorical(logits=base.weight_logits), components)
    elif isinstance(base, Uniform):
        each = distributions.Uniform(base.box.low, base.box.high)
    else:
        each = distributions.Normal(torch.zeros(D, dtype=DOUBLE), 1.0)
    return distributions.Independent(each, 1)


def bases() -> list[Distribution]:
    torch.manual_seed(0)
    return [
        StandardNormal(D).double(),
        normal(),
        conditional(),
        conditional(hidden_features=(5,), activation="tanh"),
        mixture(),
        Uniform([-1.0, 0.0, 2.0], [1.5, 0.1, 7.0]).double(),
        Uniform(-2.0, 3.0, D).double(),
    ]


@pytest.mark.parametrize("base", bases(), ids=lambda b: type(b).__name__)
def test_log_prob_and_its_gradient_are_those_of_torch(base: Distribution) -> None:
    torch.manual_seed(1)
    context = torch.randn(5, F, dtype=DOUBLE)
    z = by_torch(base, context).sample((2,) if base.conditional else (2, 5)).requires_grad_()
    log_prob, truth = base.log_prob(z, context), by_torch(base, context).log_prob(z)
    assert log_prob.shape == (2, 5)
    torch.testing.assert_close(log_prob, truth, rtol=1e-12, atol=1e-12)
    inputs = [z, *base.parameters()]
    if log_prob.requires_grad:
        for grad, expected in zip(*(torch.autograd.grad(t.sum(), inputs) for t in (log_prob, truth)), strict=True):
            torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("base", bases(), ids=lambda b: type(b).__name__)
def test_samples_have_the_distribution(base: Distribution) -> None:
    torch.manual_seed(2)
    base = copy.deepcopy(base).requires_grad_(False)
    context = torch.randn(F, dtype=DOUBLE)
    n = 40000
    z = base.sample((n,), context)
    assert z.shape == (n, D) and z.dtype == DOUBLE and not z.requires_grad
    truth = by_torch(base, context)
    # Five standard deviations of a mean, and of a variance of what has no heavier tails than these mixtures.
    deviation = truth.variance.sqrt()
    assert ((z.mean(0) - truth.mean).abs() < 5 * deviation / math.sqrt(n)).all()
    assert ((z.var(0) / truth.variance - 1).abs() < 5 * math.sqrt(8 / n)).all()
    # The mean log-density, minus the entropy, tells of the shape as well.
    ours, theirs = base.log_prob(z, context), truth.log_prob(truth.sample((n,)))
    assert abs(float(ours.mean() - theirs.mean())) <= 5 * float(theirs.std()) * math.sqrt(2 / n) + 1e-12


def test_a_mixture_draws_its_components_by_weight() -> None:
    base = MixtureOfNormals(1, 3).double()
    with torch.no_grad():
        base.weight_logits.copy_(torch.tensor([0.5, 0.0, 0.5]).log())
        base.means.copy_(torch.tensor([[-100.0], [0.0], [100.0]]))
    z = base.sample((10000,), generator=torch.Generator().manual_seed(0)).squeeze(-1)
    assert not (z.abs() < 50).any()
    # Five standard deviations of a frequency.
    assert abs(float((z > 0).double().mean()) - 0.5) < 5 * 0.5 / 100


def test_a_mixture_far_from_the_origin_keeps_its_digits() -> None:
    """The expanded form of the squared distance, as a matrix product has it, loses all of them."""
    base = mixture()
    with torch.no_grad():
        base.means.add_(1e4)
    z = base.sample((50,), generator=torch.Generator().manual_seed(0)).float()
    single = copy.deepcopy(base).float()
    truth = copy.deepcopy(single).double().log_prob(z.double())
    # Differences near 1e4 are exact; what is left are the roundings of squares up to a few hundred.
    torch.testing.assert_close(single.log_prob(z).double(), truth, rtol=2e-6, atol=2e-5)


def test_a_uniform_base_is_nothing_outside() -> None:
    base = Uniform(0.0, 2.0, 2)
    z = torch.tensor([[0.0, 2.0], [1.0, 2.1], [-0.1, 1.0], [torch.nan, 1.0], [1.0, 1.0]])
    expected = torch.tensor([-2 * math.log(2), -math.inf, -math.inf, -math.inf, -2 * math.log(2)])
    torch.testing.assert_close(base.log_prob(z), expected)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 5)])
@pytest.mark.parametrize("base", bases(), ids=lambda b: type(b).__name__)
def test_shapes_generators_and_dtypes(base: Distribution, shape: tuple[int, ...]) -> None:
    for dtype in (DOUBLE, torch.float32, torch.bfloat16):
        cast = copy.deepcopy(base).to(dtype)
        context = torch.randn(F, dtype=dtype)
        draws = [cast.sample(shape, context, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*draws) and draws[0].shape == (*shape, D) and draws[0].dtype == dtype
        log_prob = cast.log_prob(draws[0], context)
        assert log_prob.shape == shape and log_prob.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
        assert log_prob.isfinite().all()


def test_each_context_row_has_its_own_samples() -> None:
    base = conditional()
    context = torch.randn(5, 1, F, dtype=DOUBLE)
    z = base.sample((7, 5, 3), context)
    assert z.shape == (7, 5, 3, D) and len(z.flatten().unique()) == z.numel()
    assert base.log_prob(z, context).shape == (7, 5, 3)
    assert base.log_prob(z[0, 0, 0], context).shape == (5, 1)
    with pytest.raises(ValueError, match=r"context: expected a batch that broadcasts to \(3,\), found \(5, 1\)"):
        base.sample((3,), context)


@pytest.mark.parametrize("base", [normal(), conditional()], ids=lambda b: type(b).__name__)
def test_samples_of_normals_carry_gradients(base: Distribution) -> None:
    context = torch.randn(4, F, dtype=DOUBLE, requires_grad=base.conditional)
    parameters = [*base.parameters(), *([context] if base.conditional else [])]
    torch.manual_seed(0)
    z = base.rsample((4,), context)
    torch.manual_seed(0)
    noise = torch.randn(4, D, dtype=DOUBLE)
    truth = by_torch(base, context).base_dist
    expected = truth.loc + truth.scale * noise
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    grads, truths = (torch.autograd.grad(t.square().sum(), parameters) for t in (z, expected))
    for grad, t in zip(grads, truths, strict=True):
        torch.testing.assert_close(grad, t, rtol=1e-10, atol=1e-10)
    flow = MAF(D, transforms=1, hidden_features=(8,), context_features=F if base.conditional else 0, base=base, dtype=DOUBLE)
    x = flow.rsample(3, context if base.conditional else None)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(x.sum(), parameters))


def test_samples_of_a_mixture_pretend_no_gradient() -> None:
    flow = MAF(D, transforms=1, hidden_features=(8,), base={"base": "MixtureOfNormals"})
    assert not flow.base.reparameterised and DiagonalNormal(2).reparameterised and Uniform().reparameterised
    with pytest.raises(NotImplementedError, match="MixtureOfNormals: expected a base whose samples have gradients"):
        flow.rsample(3)
    x, log_prob = flow.sample_and_log_prob(3)
    assert not x.requires_grad and not log_prob.requires_grad
    torch.testing.assert_close(log_prob, flow.log_prob(x).detach(), rtol=1e-4, atol=1e-4)
    assert flow.log_prob(x).requires_grad


@pytest.mark.parametrize("options", BASE_OPTIONS, ids=lambda o: o["base"])
def test_a_flow_over_each_base(options: dict) -> None:
    torch.manual_seed(0)
    context_features = F if options["base"] == "ConditionalDiagonalNormal" else 0
    flow = MAF(D, transforms=2, hidden_features=(16,), context_features=context_features, base=options, dtype=DOUBLE)
    assert type(flow.base) is BASES[options["base"]] and flow.base.features == D
    for parameter in flow.base.parameters():
        nn.init.normal_(parameter)
    context = torch.randn(4, F, dtype=DOUBLE) if context_features else None
    x, log_prob = flow.sample_and_log_prob((6, 4) if context is None else 6, context)
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=1e-9, atol=1e-9)
    z, log_det = flow.transform(x, context)
    expected = by_torch(flow.base, context).log_prob(z) + log_det
    torch.testing.assert_close(log_prob, expected, rtol=1e-9, atol=1e-9)
    config = json.loads(json.dumps(flow.config))
    assert config["base"]["base"] == options["base"]
    twin = MAF(**config).double()
    twin.load_state_dict(flow.state_dict())
    assert twin.config == flow.config
    for other in (twin, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))


@pytest.mark.parametrize("options", BASE_OPTIONS, ids=lambda o: o["base"])
def test_a_conditional_flow_over_each_base_compiles_into_one_graph(options: dict) -> None:
    torch.manual_seed(0)
    flow = MAF(D, transforms=2, hidden_features=(16,), context_features=F, base=options)
    x, context = torch.randn(6, D), torch.randn(6, F)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), flow(x, context))
    parameters = list(flow.parameters())
    grads, truths = (torch.autograd.grad(f(x, context).sum(), parameters) for f in (compiled, flow))
    for grad, truth in zip(grads, truths, strict=True):
        torch.testing.assert_close(grad, truth)


def test_autocast_leaves_the_density_in_float32() -> None:
    torch.manual_seed(0)
    for options in BASE_OPTIONS:
        flow = MAF(D, transforms=1, hidden_features=(16,), context_features=F, base=options)
        x, context = torch.randn(6, D), torch.randn(6, F)
        with torch.autocast("cpu", torch.bfloat16):
            log_prob, samples = flow.log_prob(x, context), flow.sample(2, context)
        assert log_prob.dtype == torch.float32 and samples.dtype == torch.float32
        torch.testing.assert_close(log_prob, flow.log_prob(x, context), rtol=0, atol=0.1)


def test_learned_normals_start_as_the_standard_one() -> None:
    z = torch.randn(5, D)
    truth = StandardNormal(D).log_prob(z)
    torch.testing.assert_close(DiagonalNormal(D).log_prob(z), truth)
    torch.testing.assert_close(ConditionalDiagonalNormal(D, F).log_prob(z, torch.randn(5, F)), truth, rtol=0.05, atol=0.05)


def test_a_mixture_base_finds_two_clusters() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 2) * 0.3 + torch.tensor([3.0, -3.0]) * torch.randint(0, 2, (1000, 1)).mul(2).sub(1)
    flow = MAF(2, transforms=1, hidden_features=(8,), base={"base": "MixtureOfNormals", "components": 2})
    optimizer = torch.optim.Adam(flow.parameters(), 0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
    # The entropy of two well separated normals of deviation 0.3.
    truth = math.log(2) + 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.3))
    assert loss.item() < truth + 0.1


class Own(Distribution):
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return -z.abs().sum(-1)


def test_a_base_of_ones_own_has_no_config() -> None:
    flow = MAF(D, transforms=1, hidden_features=(8,), base=Own())
    assert isinstance(flow, Flow) and flow.log_prob(torch.randn(2, D)).shape == (2,)
    with pytest.raises(TypeError, match=r"base: expected bases of StandardNormal.*found Own"):
        _ = flow.config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DiagonalNormal(0), "features: expected at least 1, found 0"),
        (lambda: ConditionalDiagonalNormal(2, 0), "context_features: expected at least 1, found 0"),
        (lambda: ConditionalDiagonalNormal(2, 1, hidden_features=(0,)), "hidden_features: expected at least 1, found 0"),
        (lambda: ConditionalDiagonalNormal(2, 1, activation="cube"), "activation: expected one of identity"),
        (lambda: MixtureOfNormals(2, 0), "components: expected at least 1, found 0"),
        (lambda: Uniform(1.0, 1.0), "low: expected less than high for feature 0, found 1.0 and 1.0"),
        (lambda: Uniform(0.0, None), r"low, high: expected finite numbers, found \[0.0\] and \[None\]"),
        (lambda: Uniform([0.0, 0.0], 1.0, 3), "low: expected a number or 3 of them, found 2"),
        (lambda: MAF(2, base={"base": "Cauchy"}), "base: expected 'base' to be one of StandardNormal.*found 'Cauchy'"),
        (lambda: MAF(2, base=StandardNormal(3)), "base: expected 2 features, found 3"),
        (lambda: MAF(2, base={"base": "ConditionalDiagonalNormal"}), "context_features: expected at least 1, found 0"),
        (lambda: MixtureOfNormals(2).log_prob(torch.zeros(3)), r"z: expected shape \(..., 2\), found \(3,\)"),
        (
            lambda: ConditionalDiagonalNormal(2, 1).log_prob(torch.zeros(3, 2)),
            r"context: expected shape \(..., 1\), found None",
        ),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()


def test_what_is_no_base_is_named() -> None:
    with pytest.raises(TypeError, match="base: expected a base or a dict, found str"):
        MAF(2, base="normal")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", BASE_OPTIONS, ids=lambda o: o["base"])
def test_a_flow_over_each_base_moved_to_cuda_is_the_same(options: dict) -> None:
    torch.manual_seed(0)
    flow = MAF(
        D,
        transforms=2,
        hidden_features=(16,),
        context_features=F,
        preprocess=[{"transform": "Bounds", "low": [0.0, None, None], "high": [1.0, 9.0, None]}],
        base=options,
        batch_norm=True,
        embedding={"features": 4},
        dtype=DOUBLE,
    ).eval()
    x, context = torch.rand(6, D, dtype=DOUBLE), torch.randn(6, F, dtype=DOUBLE)
    expected = flow.log_prob(x, context)
    flow.cuda()
    torch.testing.assert_close(flow.log_prob(x.cuda(), context.cuda()).cpu(), expected, rtol=1e-9, atol=1e-9)
    samples = Truncated(flow, 0.1, None).sample(5, context.cuda(), generator=torch.Generator("cuda").manual_seed(1))
    assert samples.is_cuda and samples.shape == (5, 6, D) and (samples >= 0.1).all()
