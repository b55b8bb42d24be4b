"""The CUDA C++ kernels of autoregressive networks with tf32 and bfloat16 weights, on the CPU with an emulated mma.m16n8k8."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import emulation
import pytest
import torch
from emulation import TILES
from inverses import call, case, results
from networks import network, parameters
from support import assert_as_accurate, rms_error
from torch import Tensor

from fastgen import reference
from fastgen.ops import _autoregressive_cuda
from fastgen.reference import ConditionalSampler, MaskedNetwork
from fastgen.reference.autoregressive_inverse import FORMS

_masked_mlp = importlib.import_module("fastgen.reference.masked_mlp")

# All with more features than a block, or with features that all threads walk together: else nothing is multiplied here.
NETWORKS = {
    "plain": network(range(1, 40), (130, 57)),
    "residual and direct": network(range(40, 0, -1), (90,) * 3, residual=True, direct=True, activation="tanh"),
    "wide": network((2, 1, 3), (260, 250)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_tile = pytest.mark.parametrize("tile", TILES, ids=lambda tile: str(tile[0]))


@pytest.fixture
def tf32(choose: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Allows tf32; what chooses tiles."""
    monkeypatch.setattr(_autoregressive_cuda, "_tf32", lambda: True)
    return choose


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["tf32", "bfloat16"])
def weights(request: pytest.FixtureRequest, tf32: Callable[..., None]) -> torch.dtype:
    """The dtype of weights, float32 of which tf32 is allowed."""
    return request.param


def rounded(t: Tensor) -> Tensor:
    """To the nearest of 11 significant bits."""
    mantissa, exponent = t.frexp()
    return torch.ldexp((mantissa * 2048).round() / 2048, exponent)


class Tf32Linear(torch.autograd.Function):
    """x weight^T as PyTorch computes it where it is allowed tf32, forward and backward; but for these roundings exact."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return rounded(x) @ rounded(weight).t()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        return rounded(grad) @ rounded(weight), rounded(grad).t() @ rounded(x)


def in_tf32(function: Callable, *given, **options):  # type: ignore[no-untyped-def]
    """A definition in float64, its matrix products in tf32."""

    def masked_linear(x, weight, bias, in_degrees, out_degrees, *, strict=False):  # type: ignore[no-untyped-def]
        mask = reference.degree_mask(in_degrees, out_degrees, strict=strict)
        y = Tf32Linear.apply(x, weight * mask.to(weight))
        return y if bias is None else y + bias

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_masked_mlp, "masked_linear", masked_linear)
        return function(*given, **options)


def exact(given: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in given]


def sample(noise: Tensor, net: MaskedNetwork, params: list[Tensor], sampler: ConditionalSampler) -> Tensor:
    """As the operation does on CUDA tensors, with parameters in half precision too."""
    plan = [t for layer in emulation.plan(net) for t in layer]
    residuals = [-1 if layer.residual is None else layer.residual for layer in net.layers]
    spec = [layer.activation for layer in net.layers], residuals, net.direct
    return emulation._sample._call(noise, params, None, None, 0, plan, *spec, *sampler.code)


@every_network
@every_tile
def test_products_without_rounding_are_exact(choose: Callable[..., None], weights: torch.dtype, name: str, tile) -> None:  # type: ignore[no-untyped-def]
    """Zeros and ones, and weights of -1, 0 and 1, so few that all sums are small integers: no factor is rounded."""
    layers = NETWORKS[name].layers
    hidden = [len(layer.out_degrees) for layer in layers[:-1]]
    net = network(layers[0].in_degrees, hidden, outputs=1, residual=len(hidden) > 2, direct=True)
    generator = torch.Generator().manual_seed(1)

    def sparse(shape: torch.Size) -> Tensor:
        kept = torch.rand(shape, generator=generator) < 0.1
        return kept * torch.randint(-1, 2, shape, generator=generator)

    params = [sparse(p.shape) for p in parameters(net)]
    noise = torch.rand(37, net.features, 1, generator=generator)
    sampler = ConditionalSampler("bernoulli")
    choose(*tile)
    found = sample(noise, net, [p.to(weights) for p in params], sampler)
    expected = reference.autoregressive_sample(noise.double(), net, [p.double() for p in params], sampler=sampler)
    assert torch.equal(found.double(), expected)
    assert 0.2 < expected.mean() < 0.8


@every_network
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [8, 16, 32])
def test_tf32_is_as_accurate_as_pytorch(tf32: Callable[..., None], name: str, form: str, rows: int) -> None:
    net = NETWORKS[name]
    given = case(net, 50, True, torch.float32)
    tf32(rows)
    found = results(emulation.inverse, net, given, form=form)
    truth = results(reference.autoregressive_inverse, net, exact(given), form=form)
    plain = in_tf32(results, reference.autoregressive_inverse, net, exact(given), form=form)
    for f, p, t in zip(found, plain, truth, strict=True):
        error, of_plain = (rms_error(other.flatten().float(), t.flatten()) for other in (f, p))
        assert error <= 2 * of_plain + 1e-6
    # Of another precision than float32 at all.
    assert rms_error(found[0].flatten(), truth[0].flatten()) > 1e-5


@every_network
@pytest.mark.parametrize("rows", [8, 16, 32])
def test_bfloat16_weights_are_not_rounded_again(choose: Callable[..., None], name: str, rows: int) -> None:
    """Against float64 with the same weights: the error is that of states in tf32."""
    net, sampler = NETWORKS[name], ConditionalSampler("gaussian")
    noise, _, _, *params = case(net, 50, False, torch.float32)
    half = [(p / 2).bfloat16() for p in params]
    choose(rows)
    found = sample(noise.unsqueeze(-1), net, half, sampler)
    given = noise.double().unsqueeze(-1), net, [p.double() for p in half]
    truth = reference.autoregressive_sample(*given, sampler=sampler)
    plain = in_tf32(reference.autoregressive_sample, *given, sampler=sampler)
    assert rms_error(found, truth) <= 2 * rms_error(plain.float(), truth) + 1e-6


@pytest.mark.parametrize("name", ["plain", "wide"])
def test_bfloat16_is_as_accurate_as_pytorch(choose: Callable[..., None], name: str) -> None:
    net = NETWORKS[name]
    w, _, _, *params = case(net, 50, False, torch.bfloat16)
    plan = [t for layer in emulation.plan(net) for t in layer]
    described = [layer.activation for layer in net.layers], [-1] * 3, False, False, 0, 0.0, 0.0
    params = [p / 2 for p in params]
    found = emulation._operation._call(w, params, None, None, plan, *described)
    options = {"scale_map": reference.ScaleMap()}
    expected = call(reference.autoregressive_inverse, net, [w, None, None, *params], **options)
    truth = call(reference.autoregressive_inverse, net, [w.double(), None, None, *exact(params)], **options)
    assert found[0].dtype == torch.bfloat16
    for triple in zip(found, expected, truth, strict=True):
        assert_as_accurate(*(t.flatten() for t in triple))
    needs = [True, False, *(True for _ in params)]
    ones = torch.ones_like(w), torch.ones_like(found[1])
    gradients = emulation._operation._call_backward(*ones, w, found[0], params, None, needs, plan, *described)
    leaves = [t.detach().requires_grad_() for t in exact([w, *params])]
    outputs = call(reference.autoregressive_inverse, net, [leaves[0], None, None, *leaves[1:]], **options)
    expected = torch.autograd.grad(sum(o.sum() for o in outputs), leaves)
    for f, t in zip(gradients, expected, strict=True):
        # What a solution of 8 bits, at which they are taken, leaves of them.
        assert f.dtype == torch.bfloat16 and rms_error(f.flatten(), t.flatten()) < 2**-5


@every_network
@pytest.mark.parametrize("rows", [8, 16, 32])
def test_no_barrier_is_missing(choose: Callable[..., None], weights: torch.dtype, name: str, rows: int) -> None:
    """Threads go on in any order and give the same bits."""
    net = NETWORKS[name]
    noise, _, _, *params = case(net, 33, False, torch.float32)
    given = noise.unsqueeze(-1), net, [(p / 2).to(weights) for p in params], ConditionalSampler("gaussian")
    found = []
    for order in (0, 1, 2):
        choose(rows, True, 1, order)
        found.append(sample(*given))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_spoils_no_other(choose: Callable[..., None], weights: torch.dtype, bad: float) -> None:
    net = NETWORKS["plain"]
    noise, _, _, *params = case(net, 40, False, torch.float32)
    given = net, [(p / 2).to(weights) for p in params], ConditionalSampler("gaussian")
    choose(16, True, 1)
    everything = sample(noise.unsqueeze(-1), *given)
    noise[3, 3] = bad
    spoilt = sample(noise.unsqueeze(-1), *given)
    others = torch.arange(40) != 3
    assert torch.equal(everything[others], spoilt[others])
    assert not spoilt[3, 3:].isfinite().any()
