"""The CUDA C++ kernels of autoregressive_inverse run on the CPU, from the source that is compiled for devices."""

from __future__ import annotations

from collections.abc import Callable

import emulation
import pytest
import torch
from emulation import TILES
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from inverses import NETWORKS, ORDER, SOFT_CLIP, call, case, networks, results
from networks import network
from support import SCALE_MAPS, assert_as_accurate, strided_like

from fastgen import backends, ops, reference
from fastgen.reference import MaskedLayer, MaskedNetwork
from fastgen.reference.autoregressive_inverse import FORMS

ORDERS = (0, 1, 2)
OUTPUTS = (2, 2, 1, 1, 3, 3)
# More than 160 hidden units of one degree are walked by all threads of a block together.
WIDE = {
    "wide": network(range(1, 4), (260, 250)),
    "wide residual and direct": network((3, 1, 2), (240,) * 3, residual=True, direct=True),
    "features of many units": network(range(1, 30), (130, 260)),
    "wide, one feature": network((1,), (200, 170)),
    "outputs that add sums": MaskedNetwork(
        (MaskedLayer((2, 1, 3), OUTPUTS, strict=True, activation="tanh"), MaskedLayer(OUTPUTS, OUTPUTS, residual=0)), outputs=2
    ),
}


@pytest.mark.parametrize("name", [*NETWORKS, *WIDE])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("context", [False, True], ids=["", "context"])
def test_float64_equals_the_reference(choose: Callable[..., None], name: str, form: str, context: bool) -> None:
    net = {**NETWORKS, **WIDE}[name]
    given = case(net, 35, context)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    for tile in TILES:
        choose(*tile)
        found = results(emulation.inverse, net, given, form=form)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "name", ["any order", "residual and direct", "more features than a block", "wide", "wide residual and direct"]
)
@pytest.mark.parametrize("rows", [8, 16, 32])
def test_no_barrier_is_missing(choose: Callable[..., None], name: str, rows: int) -> None:
    """Threads go on in any order and give the same bits."""
    net = {**NETWORKS, **WIDE}[name]
    given = case(net, 33, True, torch.float32)
    found = []
    for order in ORDERS:
        choose(rows, True, 1, order)
        found.append(results(emulation.inverse, net, given))
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    net=networks(),
    rows=st.sampled_from([0, 1, 3, 9, 33]),
    context=st.booleans(),
    form=st.sampled_from(FORMS),
    tile=st.sampled_from(TILES),
)
def test_random_networks(choose: Callable[..., None], net: MaskedNetwork, rows: int, context: bool, form: str, tile) -> None:  # type: ignore[no-untyped-def]
    given = case(net, rows, context)
    choose(*tile)
    found = results(emulation.inverse, net, given, form=form)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale_map", SCALE_MAPS)
@pytest.mark.parametrize("form", FORMS)
def test_every_scale_map(choose: Callable[..., None], scale_map: str, form: str) -> None:
    net, options = NETWORKS["any order"], {"form": form, "scale_map": SCALE_MAPS[scale_map]}
    given = case(net, 9, False)
    expected = results(reference.autoregressive_inverse, net, given, **options)
    torch.testing.assert_close(results(emulation.inverse, net, given, **options), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation(choose: Callable[..., None], activation: str) -> None:
    net = network(ORDER, (33, 33, 33), activation=activation, residual=True)
    given = case(net, 9, True)
    expected = results(reference.autoregressive_inverse, net, given)
    torch.testing.assert_close(results(emulation.inverse, net, given), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [8, 32])
def test_float32_is_as_accurate_as_pytorch(choose: Callable[..., None], form: str, rows: int) -> None:
    net = network(range(1, 25), (64, 100))
    given = case(net, 50, False, torch.float32)
    choose(rows)
    truth = results(reference.autoregressive_inverse, net, [t if t is None else t.double() for t in given], form=form)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    outcome = results(emulation.inverse, net, given, form=form)
    for triple in zip(outcome, expected, truth, strict=True):
        # Against the norm of the whole: a row may hold one output that sees one input.
        assert_as_accurate(*(t.flatten() for t in triple))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_spoils_no_other(choose: Callable[..., None], bad: float) -> None:
    net = NETWORKS["more features than a block"]
    given = case(net, 40, False)
    # One block solves every tile: nothing of a row may stay behind in its state.
    choose(8, True, 1)
    everything = results(emulation.inverse, net, given)[:3]
    given[0][3, 3] = bad
    spoilt = results(emulation.inverse, net, given)[:3]
    others = torch.arange(40) != 3
    assert all(torch.equal(a[others], b[others]) for a, b in zip(everything, spoilt, strict=True))
    assert not spoilt[0][3, 3].isfinite()


def test_weights_outside_the_mask_are_not_read(choose: Callable[..., None]) -> None:
    for net in (NETWORKS["any order"], WIDE["wide"]):
        given = case(net, 9, False)
        expected = results(emulation.inverse, net, given)
        for i, layer in enumerate(net.layers):
            mask = reference.degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), strict=layer.strict)
            given[3 + 2 * i] = torch.where(mask.bool(), given[3 + 2 * i], torch.nan)
        torch.testing.assert_close(results(emulation.inverse, net, given), expected)


def test_any_strides(choose: Callable[..., None]) -> None:
    net = NETWORKS["any order"]
    w, terms, log_det, *params = case(net, 12, True)
    v, _ = call(emulation.inverse, net, [w, terms, log_det, *params])
    for view in strided_like(w):
        torch.testing.assert_close(call(emulation.inverse, net, [view, terms, log_det, *params])[0], v)
    # One context and one log_det for all rows.
    one = [w, terms[0], log_det[:1].expand(12), *params]
    many = [w, terms[:1].repeat(12, 1), log_det[:1].repeat(12), *params]
    torch.testing.assert_close(call(emulation.inverse, net, one), call(emulation.inverse, net, many))
    leaves = [w.requires_grad_(), *(p.requires_grad_() for p in params)]
    outputs = call(emulation.inverse, net, [w, terms, log_det, *params])
    ones = torch.ones((), dtype=v.dtype).expand(12)
    for grad in strided_like(torch.randn_like(v)):
        expected = torch.autograd.grad(outputs, leaves, (grad.contiguous(), ones.contiguous()), retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(outputs, leaves, (grad, ones), retain_graph=True), expected)


def test_gradients_that_are_not_asked_for(choose: Callable[..., None]) -> None:
    net = NETWORKS["direct"]
    given = case(net, 5, True)
    everything = results(emulation.inverse, net, given)[2:]
    for wanted in range(len(given)):
        leaves = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(given)]
        outputs = call(emulation.inverse, net, leaves)
        grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
        (found,) = torch.autograd.grad(outputs, [leaves[wanted]], grads)
        torch.testing.assert_close(found, everything[wanted])
    for which in (0, 1):
        found, expected = (
            torch.autograd.grad(call(function, net, leaves)[which].sum(), leaves, allow_unused=True)
            for function in (emulation.inverse, reference.autoregressive_inverse)
            for leaves in [[t.detach().requires_grad_() for t in given]]
        )
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_solved_in_float32(choose: Callable[..., None], dtype: torch.dtype) -> None:
    net = NETWORKS["residual and direct"]
    w, terms, _, *params = case(net, 9, True, dtype)
    flat = [t for layer in emulation.plan(net) for t in layer]
    spec = ([layer.activation for layer in net.layers], [-1 if r is None else r for r in (x.residual for x in net.layers)])
    v, total = emulation._operation._call(w, params, terms, None, flat, *spec, True, False, *SOFT_CLIP.code)
    exact = [t.float() for t in (w, terms, *params)]
    expected = call(ops.autoregressive_inverse, net, [exact[0], exact[1], None, *exact[2:]], plan=emulation.plan(net))
    assert v.dtype == dtype and total.dtype == torch.float32
    torch.testing.assert_close((v, total), (expected[0].to(dtype), expected[1]))
    needs = [True] * (2 + len(params))
    grads = emulation._operation._call_backward(v, total, w, v, params, terms, needs, flat, *spec, True, False, *SOFT_CLIP.code)
    assert all(g.dtype == dtype and g.shape == t.shape for g, t in zip(grads, (w, terms, *params), strict=True))


def test_the_boundary_checks_again(choose: Callable[..., None]) -> None:
    net = NETWORKS["plain"]
    w, _, _, *params = case(net, 4, False)
    *layers, walk = (t for layer in emulation.plan(net) for t in layer)
    arguments = {
        "w": w,
        "params": params,
        "context_terms": None,
        "log_det_in": None,
        "plan": layers,
        "walk": walk,
        "activations": ["relu", "relu", "identity"],
        "residuals": [-1] * 3,
        "direct": False,
        "divide": False,
        "kind": 0,
        "first": 0.0,
        "second": 0.0,
        "tf32": False,
        "v": torch.empty_like(w),
        "log_det": w.new_empty(4),
        "allocate": w.new_empty,
        "stream": 0,
    }
    for change, message in (
        ({"walk": walk[:20]}, "walk: expected what make_network_plan made"),
        ({"v": w.new_empty(4, 6)}, "v: expected shape"),
        ({"params": params[:4]}, "params: expected 6 entries"),
        ({"kind": 9}, "kind: expected a scale map"),
        ({"w": w[:, :6]}, "w: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            backends.compiled().autoregressive_inverse_cuda_forward(**{**arguments, **change})
