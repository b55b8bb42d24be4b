from __future__ import annotations

import copy
import json
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from fastgen.flows import (
    MAF,
    Composed,
    Dequantize,
    Flow,
    Logit,
    MixtureOfNormals,
    Permutation,
    RealNVP,
    Standardise,
    StandardLogistic,
    StandardNormal,
    Uniform,
    UnitInterval,
)
from fastgen.flows.coupling_flow import half_masks
from fastgen.flows.latent import arc, line
from fastgen.nn import MLP, ConvNet, ResidualMLP

DOUBLE = torch.float64
SHAPE = (2, 4, 4)
VARIANTS = {
    "halves": {},
    "alternating": {"mask": "alternating", "conditioner": "residual", "activation": "tanh"},
    "random": {"mask": "random", "seed": 3, "scale_map": {"kind": "sigmoid", "eps": 1e-3}},
    "context": {"context_features": 2, "base": {"base": "ConditionalDiagonalNormal"}},
    "embedding": {"context_features": 2, "embedding": {"features": 3}, "conditioner": "residual"},
    "reversible": {"context_features": 2, "reversible": True, "anchor_every": 2},
}
each = pytest.mark.parametrize("variant", VARIANTS)


def realnvp(features: int = 5, **options) -> RealNVP:  # type: ignore[no-untyped-def]
    return RealNVP(features, **{"transforms": 3, "hidden_features": (8, 8), **options})


def of_images(**options) -> RealNVP:  # type: ignore[no-untyped-def]
    return RealNVP(shape=SHAPE, **{"transforms": 3, "hidden_features": (4,), **options})


def context_of(flow: Flow, *batch: int, dtype: torch.dtype = DOUBLE) -> Tensor | None:
    features = flow.config["context_features"]
    return torch.randn(*batch, features, dtype=dtype) if features else None


def perturbed(flow: nn.Module, std: float) -> nn.Module:
    """The flow with last layers that are not zero."""
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, MLP | ResidualMLP | ConvNet):
                last = module.layers[-1] if isinstance(module, MLP) else module.last
                for parameter in last.parameters():
                    parameter.normal_(std=std)
    return flow


class PlainRealNVP(nn.Module):
    """RealNVP on vectors as its paper has it, halves in turn, in plain PyTorch."""

    def __init__(self, features: int, transforms: int, hidden: int) -> None:
        super().__init__()
        self.half = features // 2
        sizes = [(self.half, features - self.half), (features - self.half, self.half)]
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * b))
            for a, b in (sizes[i % 2] for i in range(transforms))
        )

    def log_prob(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.half], x[:, self.half :]
        log_det = torch.zeros(len(x), dtype=x.dtype)
        for i, network in enumerate(self.networks):
            passing, moved = (first, second) if i % 2 == 0 else (second, first)
            shift, raw = network(passing).chunk(2, 1)
            log_scale = raw / (1 + (raw / 2).abs())
            moved = moved * log_scale.exp() + shift
            log_det = log_det + log_scale.sum(1)
            first, second = (passing, moved) if i % 2 == 0 else (moved, passing)
        z = torch.cat([first, second], 1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det


def plain(flow: RealNVP, hidden: int) -> PlainRealNVP:
    twin = PlainRealNVP(flow.base.features, len(flow.transform), hidden).to(next(flow.parameters()).dtype)
    with torch.no_grad():
        for ours, theirs in zip(flow.parameters(), twin.parameters(), strict=True):
            theirs.copy_(ours)
    return twin


def test_equals_plain_pytorch(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(transforms=4))
    twin = plain(flow, 8)
    x = torch.randn(6, 5, dtype=DOUBLE, requires_grad=True)
    for ours, theirs in ((flow, twin), (copy.deepcopy(flow).float(), copy.deepcopy(twin).float())):
        data = x.to(next(ours.parameters()).dtype)
        # float32 sums of some hundred terms.
        tolerance = 1e-10 if data.dtype == DOUBLE else 1e-4
        found, truth = ours.log_prob(data), theirs.log_prob(data)
        torch.testing.assert_close(found, truth, rtol=tolerance, atol=tolerance)
        grads = torch.autograd.grad(found.sum(), [x, *ours.parameters()])
        expected = torch.autograd.grad(truth.sum(), [x, *theirs.parameters()])
        for grad, wanted in zip(grads, expected, strict=True):
            assert (grad - wanted).norm() <= tolerance * wanted.norm() + 1e-12


@each
def test_log_det_is_that_of_the_jacobian(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(**VARIANTS[variant]))
    x, context = torch.randn(3, 5, dtype=DOUBLE), context_of(flow, 3)
    log_prob, seen = flow.log_prob(x, context), flow.seen_context(context)
    for i, row in enumerate(x):
        c = None if seen is None else seen[i].detach()
        z, _ = flow.transform(row, c)
        slogdet = torch.linalg.slogdet(jacobian(lambda t: flow.transform(t, c)[0], row))[1]  # noqa: B023
        torch.testing.assert_close(log_prob[i], flow.base.log_prob(z, c) + slogdet, rtol=1e-10, atol=1e-10)
        back, log_det = flow.transform.inverse(z, c)
        torch.testing.assert_close(back, row, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(log_det, -slogdet, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"context_features": 2}, {"reversible": True}], ids=str)
def test_images(options: dict, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(of_images(**options))
    x, context = torch.randn(2, *SHAPE, dtype=DOUBLE), context_of(flow, 2)
    log_prob = flow.log_prob(x, context)
    assert log_prob.shape == (2,)
    torch.testing.assert_close(flow.log_prob(x.flatten(1), context), log_prob)
    torch.testing.assert_close(flow.log_prob(x.to(memory_format=torch.channels_last), context), log_prob)
    for i, image in enumerate(x):
        c = None if context is None else context[i]
        z, _ = flow.transform(image.flatten(), c)
        slogdet = torch.linalg.slogdet(jacobian(lambda t: flow.transform(t, c)[0], image.flatten()))[1]  # noqa: B023
        torch.testing.assert_close(log_prob[i], StandardNormal(32).log_prob(z) + slogdet, rtol=1e-10, atol=1e-10)
    samples, log_prob = flow.sample_and_log_prob(3, context)
    batch = (3,) if context is None else (3, 2)
    assert samples.shape == (*batch, *SHAPE) == flow.sample(3, context).shape == flow.rsample(3, context).shape
    torch.testing.assert_close(flow.log_prob(samples, context), log_prob, rtol=1e-8, atol=1e-8)
    assert flow.sample(5, context, batch_size=2).shape == (5, *batch[1:], *SHAPE)


@each
def test_gradients_of_log_prob(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    options = {"hidden_features": (4, 4), "transforms": 2, "activation": "tanh", **VARIANTS[variant]}
    check_gradients(randomised(realnvp(4, **options)), torch.randn(2, 4, dtype=DOUBLE))


def test_gradients_of_log_prob_of_images(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(RealNVP(shape=(1, 2, 3), transforms=3, hidden_features=(2,), activation="tanh"))
    check_gradients(flow, torch.randn(2, 1, 2, 3, dtype=DOUBLE))


def check_gradients(flow: RealNVP, x: Tensor) -> None:
    context = context_of(flow, 2)
    given = [x] if context is None else [x, context]
    names = list(dict(flow.named_parameters()))

    def log_prob(*tensors: Tensor) -> Tensor:
        parameters = dict(zip(names, tensors[len(given) :], strict=True))
        return torch.func.functional_call(flow, parameters, tensors[: len(given)])

    assert torch.autograd.gradcheck(log_prob, [t.detach().requires_grad_() for t in (*given, *flow.parameters())])


@pytest.mark.parametrize("std", [0.0, 0.02])
def test_48_couplings_are_undone_in_float32(std: float) -> None:
    torch.manual_seed(0)
    for flow in (RealNVP(16, transforms=48, hidden_features=(64, 64)), of_images(transforms=48, hidden_features=(16,))):
        perturbed(flow, std)
        x = torch.randn(50, flow.base.features)
        z, log_det = flow.transform(x)
        if std == 0:
            assert torch.equal(z, x) and (log_det == 0).all()
        back, back_log_det = flow.transform.inverse(z)
        assert (back - x).norm() <= 1e-4 * x.norm()
        torch.testing.assert_close(back_log_det, -log_det, rtol=1e-4, atol=1e-4)


def test_a_flow_starts_as_its_base() -> None:
    x = torch.randn(9, 5)
    torch.testing.assert_close(realnvp().log_prob(x), StandardNormal(5).log_prob(x))


@pytest.mark.parametrize("kind", ["halves", "alternating", "random"])
@pytest.mark.parametrize("features", [2, 3, 8])
def test_every_feature_is_transformed_in_every_two_couplings(kind: str, features: int) -> None:
    masks = half_masks(kind, features, 5, 7)
    assert len(masks) == 7
    for first, second in zip(masks[::2], masks[1::2], strict=False):
        assert torch.equal(first, ~second) and abs(2 * int(first.sum()) - features) <= 1
    assert all(torch.equal(a, b) for a, b in zip(half_masks(kind, features, 5, 4), masks, strict=False))
    if kind == "random" and features == 8:
        assert len({tuple(mask.tolist()) for mask in masks[::2]}) > 1


def test_seeds_rule_random_masks() -> None:
    def drawn(seed: int | None) -> list[list[bool]]:
        torch.manual_seed(1)
        return [t.mask.tolist() for t in realnvp(8, mask="random", seed=seed).transform]

    assert drawn(None) == drawn(None) and drawn(4) == drawn(4) != drawn(5)
    assert realnvp(8, mask="random").config["seed"] is not None and realnvp(8).config["seed"] is None


@pytest.mark.parametrize("variant", [*VARIANTS, "images"])
def test_config_and_state_dict_build_the_same_flow(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    before = [UnitInterval(4), Logit(0.01), Permutation.random(32 if variant == "images" else 5)]
    flow = of_images(preprocess=before) if variant == "images" else realnvp(**VARIANTS[variant], preprocess=before)
    randomised(flow)
    x = 4 * torch.rand(20, flow.base.features, dtype=DOUBLE)
    context = context_of(flow, 20)
    flow.fit_standardisation(x, context)
    twin = RealNVP(**json.loads(json.dumps(flow.config))).double()
    twin.load_state_dict(flow.state_dict())
    assert twin.config == flow.config and torch.equal(twin.log_prob(x, context), flow.log_prob(x, context))
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))


def test_a_reversible_flow_stays_one_and_has_the_same_gradients(randomised) -> None:  # type: ignore[no-untyped-def]
    before = [Dequantize(4), UnitInterval(4), Logit(0.05)]
    flow = randomised(realnvp(transforms=6, reversible=True, preprocess=before))
    data = torch.randint(0, 4, (30, 5)).double()
    flow.fit_standardisation(data)
    ordinary = RealNVP(**{**flow.config, "reversible": False}).double()
    with torch.no_grad():
        for ours, theirs in zip(flow.state_dict().values(), ordinary.state_dict().values(), strict=True):
            theirs.copy_(ours)
    found = []
    for model in (flow, ordinary):
        torch.manual_seed(2)
        log_prob = model.log_prob(data)
        found.append([log_prob, *torch.autograd.grad(log_prob.mean(), list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm()
    assert [type(t) for t in flow.transform][-1] is Composed and flow.transform[-1].reversible


@pytest.mark.parametrize("options", [{}, {"context_features": 2}, {"shape": SHAPE, "hidden_features": (4,)}], ids=str)
def test_log_prob_and_its_gradient_compile_into_one_graph(options: dict) -> None:
    torch.manual_seed(0)
    features = None if "shape" in options else 6
    flow = perturbed(RealNVP(features, **{"transforms": 3, "hidden_features": (8,), **options}), 0.1)
    x, context = torch.randn(4, flow.base.features), context_of(flow, 4, dtype=torch.float32)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), flow(x, context))
    parameters = list(flow.parameters())
    grads = torch.autograd.grad(compiled(x, context).sum(), parameters)
    for grad, truth in zip(grads, torch.autograd.grad(flow(x, context).sum(), parameters), strict=True):
        torch.testing.assert_close(grad, truth, rtol=1e-4, atol=1e-5)


def test_dtypes_and_autocast() -> None:
    torch.manual_seed(0)
    flow = perturbed(realnvp(), 0.05)
    x = torch.randn(16, 5)
    truth = copy.deepcopy(flow).double().log_prob(x.double())
    for dtype in (DOUBLE, torch.float32, torch.bfloat16):
        log_prob = copy.deepcopy(flow).to(dtype).log_prob(x.to(dtype))
        assert log_prob.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
        # Five features of size 3, rounded at each of three couplings: an error of 3 eps in z moves z^2 / 2 by 9 eps.
        torch.testing.assert_close(log_prob.double(), truth, rtol=0, atol=5 * 3 * 9 * torch.finfo(dtype).eps)
    assert realnvp(dtype=DOUBLE).sample(2).dtype == DOUBLE
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = flow.log_prob(x)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob.double(), truth, rtol=0, atol=0.1)
    log_prob.mean().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_contexts_broadcast(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(context_features=2))
    x, context = torch.randn(4, 5, dtype=DOUBLE), torch.randn(3, 1, 2, dtype=DOUBLE)
    grid = flow.log_prob(x, context)
    assert grid.shape == (3, 4)
    torch.testing.assert_close(grid[2, 1], flow.log_prob(x[1], context[2, 0]))
    assert flow.log_prob(x[:0], context[0, 0]).shape == (0,) and flow.log_prob(x[0], context[0, 0]).shape == ()
    y, log_prob = flow.sample_and_log_prob((2,), context)
    assert y.shape == (2, 3, 1, 5)
    torch.testing.assert_close(flow.log_prob(y, context), log_prob, rtol=1e-9, atol=1e-9)


def test_rows_with_a_nan_leave_the_others_alone(randomised) -> None:  # type: ignore[no-untyped-def]
    for flow, x in ((realnvp(), torch.randn(4, 5)), (of_images(), torch.randn(4, *SHAPE))):
        randomised(flow)
        x = x.double()
        truth = flow.log_prob(x)
        x[1].view(-1)[2], x[2].view(-1)[0] = torch.nan, torch.inf
        log_prob = flow.log_prob(x)
        assert not log_prob[1:3].isfinite().any()
        torch.testing.assert_close(log_prob[[0, 3]], truth[[0, 3]])


def test_training_finds_two_moons_apart() -> None:
    torch.manual_seed(0)
    side = torch.randint(0, 2, (1000, 1)) * 4.0 - 2
    data = torch.cat([side, side.square() - 4], 1) + 0.3 * torch.randn(1000, 2)
    data[:, 1] += 0.5 * (data[:, 0] - side[:, 0]) ** 2
    flow = RealNVP(2, transforms=6, hidden_features=(32, 32))
    flow.fit_standardisation(data)
    optimizer = torch.optim.Adam(flow.parameters(), 0.005)
    for i in range(200):
        rows = data[250 * (i % 4) : 250 * (i % 4 + 1)]
        loss = -flow(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Two normals of deviation 0.3 have the entropy log 2 + 1 + log(2 pi 0.09) = 1.12 nats; one normal has 2.4.
    assert flow(data).mean() > -1.45


@pytest.mark.parametrize("options", [{}, {"base": {"base": "DiagonalNormal"}}, {"base": {"base": "StandardLogistic"}}], ids=str)
def test_temperature_scales_the_noise(options: dict, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(**options))
    centre = flow.base.centre()

    def drawn(temperature: float) -> Tensor:
        return flow.sample(6, temperature=temperature, generator=torch.Generator().manual_seed(1))

    noise, _ = flow.transform(flow.sample(6, generator=torch.Generator().manual_seed(1)))
    for temperature in (0.0, 0.5, 2.0):
        expected, _ = flow.transform.inverse(centre + temperature * (noise - centre))
        torch.testing.assert_close(drawn(temperature), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(drawn(0.0), drawn(0.0)[:1].expand(6, 5))


def test_temperature_with_contexts_and_batches(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(**VARIANTS["context"]))
    context = torch.randn(3, 2, dtype=DOUBLE)
    cold = flow.sample(4, context, temperature=0.0, batch_size=3)
    centre = flow.base.centre(context)
    torch.testing.assert_close(cold, flow.transform.inverse(centre, context)[0].expand(4, 3, 5))
    maf = MAF(3, hidden_features=(8,))
    torch.testing.assert_close(maf.sample(2, temperature=0.0), maf.transform.inverse(torch.zeros(2, 3))[0])


@pytest.mark.parametrize("temperature", [-0.5, math.nan, math.inf])
def test_bad_temperatures_are_named(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature: expected a finite number of at least 0"):
        realnvp().sample(1, temperature=temperature)


@pytest.mark.parametrize("base", [MixtureOfNormals(5, 2), Uniform(0.0, 1.0, 5)], ids=lambda b: type(b).__name__)
def test_bases_without_a_centre_have_no_temperature(base) -> None:  # type: ignore[no-untyped-def]
    flow = realnvp(base=base)
    with pytest.raises(ValueError, match=f"temperature: expected 1 with the base {type(base).__name__}, found 0.7"):
        flow.sample(1, temperature=0.7)
    assert flow.sample(2).shape == (2, 5)


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolation_goes_from_one_to_the_other(spherical: bool, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(realnvp(**VARIANTS["context"]))
    x0, x1, context = torch.randn(3, 5, dtype=DOUBLE), torch.randn(3, 5, dtype=DOUBLE), torch.randn(3, 2, dtype=DOUBLE)
    way = flow.interpolate(x0, x1, 4, context, spherical=spherical)
    assert way.shape == (4, 3, 5) and not way.requires_grad
    torch.testing.assert_close(way[0], x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(way[-1], x1, rtol=1e-8, atol=1e-8)
    z0, z1 = flow.transform(x0, context)[0], flow.transform(x1, context)[0]
    noise, _ = flow.transform(way, context)
    torch.testing.assert_close(noise, (arc if spherical else line)(z0, z1, 4), rtol=1e-7, atol=1e-7)


def test_lines_and_arcs() -> None:
    start, end = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [-2.0, 0.0]])
    torch.testing.assert_close(line(start, end, 3)[1], torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]))
    angle = torch.tensor([0.0, math.pi / 6, math.pi / 3, math.pi / 2])
    way = arc(start, end, 4)
    torch.testing.assert_close(way[:, 0], torch.stack([angle.cos(), angle.sin()], 1), rtol=1e-5, atol=1e-5)
    # In one direction or in opposite ones there is no one arc: the line.
    torch.testing.assert_close(way[:, 1:], line(start, end, 4)[:, 1:])


def test_interpolation_of_images(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(of_images())
    x0, x1 = torch.randn(3, *SHAPE, dtype=DOUBLE), torch.randn(*SHAPE, dtype=DOUBLE)
    way = flow.interpolate(x0, x1, 2)
    assert way.shape == (2, 3, *SHAPE)
    torch.testing.assert_close(way[1], x1.expand(3, *SHAPE), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RealNVP(), ValueError, "features: expected at least 2 for couplings, found None"),
        (lambda: RealNVP(1), ValueError, "features: expected at least 2 for couplings, found 1"),
        (lambda: realnvp(transforms=0), ValueError, "transforms: expected at least 1, found 0"),
        (lambda: realnvp(mask="thirds"), ValueError, "mask: expected one of halves, alternating, random, found 'thirds'"),
        (lambda: realnvp(conditioner="conv"), ValueError, "conditioner: expected one of mlp, residual, found 'conv'"),
        (lambda: realnvp(conditioner="residual", hidden_features=(3, 4)), ValueError, "hidden_features: expected equal widths"),
        (lambda: realnvp(hidden_features=(0,)), ValueError, "hidden_features: expected widths of at least 1"),
        (lambda: realnvp(hidden_features=8), TypeError, "hidden_features: expected a sequence of widths, found 8"),
        (lambda: realnvp(anchor_every=2), ValueError, "anchor_every: expected None with reversible=False, found 2"),
        (lambda: realnvp(scale_map={"kind": "cube"}), ValueError, "kind: expected one of"),
        (lambda: realnvp(4, shape=(1, 2, 3)), ValueError, r"features: expected 6, as shape \(1, 2, 3\) has, found 4"),
        (lambda: of_images(mask="halves"), ValueError, "mask: expected None for images, found 'halves'"),
        (lambda: of_images(conditioner="mlp"), ValueError, "conditioner: expected None for images, found 'mlp'"),
        (lambda: of_images(hidden_features=()), ValueError, "hidden_features: expected at least one residual block"),
        (lambda: RealNVP(shape=(2, 1, 1)), ValueError, "mask: expected images of at least two pixels for a Checkerboard"),
        (lambda: RealNVP(shape=(4, 4)), ValueError, r"shape: expected \(C, H, W\) of at least 1 each, found \(4, 4\)"),
        (lambda: realnvp().log_prob(torch.zeros(2, 4)), ValueError, r"x: expected shape \(..., 5\), found \(2, 4\)"),
        (lambda: of_images().log_prob(torch.zeros(2, 31)), ValueError, r"x: expected shape \(..., 32\), found \(2, 31\)"),
        (lambda: realnvp().log_prob(torch.zeros(2, 5), torch.zeros(2)), ValueError, r"context: expected None, found \(2,\)"),
        (lambda: realnvp().interpolate(torch.zeros(5), torch.zeros(5), 1), ValueError, "steps: expected at least 2, found 1"),
        (
            lambda: realnvp().interpolate(torch.zeros(2, 5), torch.zeros(3, 5), 2),
            ValueError,
            r"x1: expected a shape that broadcasts with x0's \(2, 5\), found \(3, 5\)",
        ),
        (lambda: realnvp(hidden=3), TypeError, "hidden"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call()


def test_both_names_of_the_same_size_are_one_flow() -> None:
    flow = RealNVP(32, shape=SHAPE, transforms=1, hidden_features=(2,))
    assert flow.config["features"] == 32 and flow.config["shape"] == list(SHAPE) and flow.shape == SHAPE
    assert isinstance(RealNVP(4).base, StandardNormal) and isinstance(realnvp(base=StandardLogistic(5)).base, StandardLogistic)
    assert Standardise not in map(type, RealNVP(4).transform)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", [*VARIANTS, "images"])
def test_a_flow_moved_to_cuda_is_the_same(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(of_images() if variant == "images" else realnvp(**VARIANTS[variant]))
    x, context = torch.randn(9, flow.base.features, dtype=DOUBLE), context_of(flow, 9)
    truth = flow.log_prob(x, context)
    grads = torch.autograd.grad(truth.sum(), list(flow.parameters()))
    flow.to("cuda")
    context = None if context is None else context.cuda()
    log_prob = flow.log_prob(x.cuda(), context)
    torch.testing.assert_close(log_prob.cpu(), truth, rtol=1e-9, atol=1e-9)
    for grad, expected in zip(torch.autograd.grad(log_prob.sum(), list(flow.parameters())), grads, strict=True):
        torch.testing.assert_close(grad.cpu(), expected, rtol=1e-8, atol=1e-8)
    drawn = flow.sample(5, context, generator=torch.Generator("cuda").manual_seed(1))
    assert drawn.is_cuda
