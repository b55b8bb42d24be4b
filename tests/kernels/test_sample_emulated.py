"""The CUDA C++ kernels of autoregressive_sample run on the CPU, from the source that is compiled for devices."""

from __future__ import annotations

from collections.abc import Callable

import emulation
import pytest
import torch
from emulation import TILES
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from samples import NETWORKS, ORDER, SAMPLERS, SOFT_CLIP, case, cases, extremes, network_for
from support import SCALE_MAPS
from torch import Tensor

from fastgen import backends, reference
from fastgen.reference import ConditionalSampler, MaskedLayer, MaskedNetwork

# More than 160 hidden units of one degree, or more than 7168 weights, are walked by all threads of a block together.
WIDE = {
    "wide": {"order": (2, 1, 3), "hidden": (260, 250)},
    "wide residual and direct": {"order": (3, 1, 2), "hidden": (240,) * 3, "residual": True, "direct": True},
}
MANY = ConditionalSampler("mixture", 50, SOFT_CLIP)
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def both(sampler: ConditionalSampler, net: MaskedNetwork, noise: Tensor, params: list[Tensor], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    functions = (emulation.sample, reference.autoregressive_sample)
    return [function(noise, net, params, sampler=sampler, **options) for function in functions]


@every_sampler
@pytest.mark.parametrize("kind", [*NETWORKS, *WIDE])
def test_float64_equals_the_reference(choose: Callable[..., None], name: str, kind: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **{**NETWORKS, **WIDE}[kind])
    noise, terms, values, params = case(sampler, net, 35)
    features = values.shape[1]
    for tile, known in zip(TILES, (features // 2, 0, features), strict=True):
        choose(*tile)
        options = {"context_terms": terms, "given": values, "known": known} if known else {}
        torch.testing.assert_close(*both(sampler, net, noise, params, **options), rtol=1e-11, atol=1e-11)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(chosen=cases(), rows=st.sampled_from([0, 1, 3, 9, 33]), context=st.booleans(), tile=st.sampled_from(TILES))
def test_random_networks(choose: Callable[..., None], chosen, rows: int, context: bool, tile) -> None:  # type: ignore[no-untyped-def]
    sampler, net, known = chosen
    noise, terms, values, params = case(sampler, net, rows)
    choose(*tile)
    options = {"context_terms": terms if context else None, "given": values, "known": known}
    torch.testing.assert_close(*both(sampler, net, noise, params, **options), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [8, 32])
def test_more_outputs_than_a_block_has_room_for(choose: Callable[..., None], rows: int) -> None:
    for sampler in (MANY, ConditionalSampler("categorical", 130)):
        net = network_for(sampler, ORDER, (20,), direct=True)
        noise, _, values, params = case(sampler, net, 9)
        choose(rows)
        torch.testing.assert_close(*both(sampler, net, noise, params), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(*both(sampler, net, noise, params, given=values, known=3), rtol=1e-11, atol=1e-11)


def test_outputs_that_add_sums(choose: Callable[..., None]) -> None:
    degrees = tuple(d for d in (2, 1, 3) for _ in range(4))
    first = MaskedLayer(degrees, degrees, strict=True, activation="tanh")
    net = MaskedNetwork((first, MaskedLayer(degrees, degrees, residual=0)), outputs=4)
    sampler = ConditionalSampler("categorical", 4)
    noise, terms, _, params = case(sampler, net, 40)
    torch.testing.assert_close(*both(sampler, net, noise, params, context_terms=terms), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["categorical", "mixture"])
@pytest.mark.parametrize("kind", ["residual and direct", "more features than a block", "wide residual and direct"])
@pytest.mark.parametrize("rows", [8, 16, 32])
def test_no_barrier_is_missing(choose: Callable[..., None], name: str, kind: str, rows: int) -> None:
    """Threads go on in any order and give the same bits."""
    sampler = SAMPLERS[name]
    net = network_for(sampler, **{**NETWORKS, **WIDE}[kind])
    noise, terms, values, params = case(sampler, net, 33, dtype=torch.float32)
    found = []
    for order in (0, 1, 2):
        choose(rows, True, 1, order)
        options = {"context_terms": terms, "given": values, "known": 2}
        found.append(emulation.sample(noise, net, params, sampler=sampler, **options))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("scale_map", SCALE_MAPS)
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_every_scale_map(choose: Callable[..., None], kind: str, scale_map: str) -> None:
    sampler = ConditionalSampler(kind, 3 if kind == "mixture" else 1, SCALE_MAPS[scale_map])
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, _, params = case(sampler, net, 9)
    torch.testing.assert_close(*both(sampler, net, noise, params), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "mixture"])
def test_extreme_logits_and_noise(choose: Callable[..., None], dtype: torch.dtype, kind: str) -> None:
    sampler = ConditionalSampler(kind, 1 if kind == "bernoulli" else 4)
    net, params, logits, noise = extremes(sampler, dtype)
    assert torch.equal(*both(sampler, net, noise, params, context_terms=logits))


def test_gaussian_samples_are_those_of_the_inverse(choose: Callable[..., None]) -> None:
    sampler = SAMPLERS["gaussian"]
    net = network_for(sampler, **NETWORKS["residual and direct"])
    noise, terms, _, params = case(sampler, net, 40)
    x = emulation.sample(noise, net, params, sampler=sampler, context_terms=terms)
    expected, _ = emulation.inverse(noise[..., 0], net, params, scale_map=SOFT_CLIP, context_terms=terms)
    assert torch.equal(x, expected)


@every_sampler
def test_known_features_are_as_given_and_others_are_not_read(choose: Callable[..., None], name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, values, params = case(sampler, net, 40)
    first = torch.tensor(ORDER) <= 4
    given, unread = values.where(first, torch.nan), noise.where(~first[:, None], torch.nan)
    x = emulation.sample(unread, net, params, sampler=sampler, given=given, known=4)
    assert torch.equal(x[:, first], values[:, first]) and x.isfinite().all()
    assert torch.equal(values, emulation.sample(unread, net, params, sampler=sampler, given=values, known=7))


@every_sampler
def test_a_row_of_nan_spoils_no_other(choose: Callable[..., None], name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["more features than a block"])
    noise, terms, values, params = case(sampler, net, 40)
    # One block solves every tile: nothing of a row may stay behind in its state.
    choose(8, True, 1)
    options = {"given": values, "known": 3}
    x = emulation.sample(noise, net, params, sampler=sampler, context_terms=terms, **options)
    terms[5] = torch.nan
    spoilt, expected = both(sampler, net, noise, params, context_terms=terms, **options)
    others = torch.arange(40) != 5
    assert torch.equal(spoilt[others], x[others])
    torch.testing.assert_close(spoilt[5], expected[5], equal_nan=True)


def test_any_strides(choose: Callable[..., None]) -> None:
    sampler = SAMPLERS["mixture"]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, terms, values, params = case(sampler, net, 3, 4)
    options = {"context_terms": terms[0, 0], "given": values[:, :1], "known": 2}
    expected = reference.autoregressive_sample(noise, net, params, sampler=sampler, **options)
    for dims in ((0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0)):
        view = noise.permute(dims).contiguous().permute([dims.index(i) for i in range(4)])
        torch.testing.assert_close(emulation.sample(view, net, params, sampler=sampler, **options), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_sampled_in_float32(choose: Callable[..., None], dtype: torch.dtype) -> None:
    sampler = SAMPLERS["categorical"]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, terms, values, params = case(sampler, net, 9, dtype=dtype)
    plan = [t for layer in emulation.plan(net) for t in layer]
    spec = ([layer.activation for layer in net.layers], [-1] * 3, False)
    x = emulation._sample._call(noise, params, terms, values, 2, plan, *spec, *sampler.code)
    exact = [p.float() for p in params]
    options = {"context_terms": terms.float(), "given": values.float(), "known": 2}
    assert x.dtype == dtype
    assert torch.equal(x.float(), emulation.sample(noise.float(), net, exact, sampler=sampler, **options))


def test_the_boundary_checks_again(choose: Callable[..., None]) -> None:
    sampler = SAMPLERS["categorical"]
    net = network_for(sampler, **NETWORKS["plain"])
    noise, terms, values, params = case(sampler, net, 4)
    *layers, walk = (t for layer in emulation.plan(net) for t in layer)
    arguments = {
        "noise": noise.flatten(1),
        "params": params,
        "context_terms": terms,
        "given": values,
        "known": 2,
        "plan": layers,
        "walk": walk,
        "activations": ["relu", "relu", "identity"],
        "residuals": [-1] * 3,
        "direct": False,
        "conditional": 1,
        "size": 5,
        "kind": 0,
        "first": 0.0,
        "second": 0.0,
        "tf32": False,
        "values": torch.empty_like(values),
        "allocate": noise.new_empty,
        "stream": 0,
    }
    for change, message in (
        ({"walk": walk[:20]}, "walk: expected what make_network_plan made"),
        ({"values": values[:, :6].contiguous()}, "values: expected shape"),
        ({"params": params[:4]}, "params: expected 6 entries"),
        ({"conditional": 4}, "conditional: expected a kind"),
        ({"size": 0}, "size: expected 1 to"),
        ({"size": 4}, "params: expected 4 inputs per feature"),
        ({"conditional": 0}, "walk: expected what make_network_plan made"),
        ({"kind": 9}, "kind: expected a scale map"),
        ({"noise": noise[:, :6].flatten(1)}, "noise: expected shape"),
        ({"given": values[:3]}, "given: expected shape"),
        ({"known": 8}, "known: expected 0 to 7"),
        ({"given": None}, "known: expected 0 to 0"),
        ({"context_terms": terms[:, :3]}, "context_terms: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            backends.compiled().autoregressive_sample_cuda(**{**arguments, **change})
