"""The kernels of masked_autoregressive, called as its Function calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from compare import RUNS_KERNELS, assert_matches, outputs_and_gradients, padded
from networks import network, parameters
from support import SCALE_MAPS
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.kernels import _parameter_gradients, _walk
from fastgen.kernels import masked_autoregressive as kernel
from fastgen.kernels._launch import Device
from fastgen.kernels.masked_linear import Tile
from fastgen.ops._network import prepare
from fastgen.reference import ACTIVATIONS, MaskedNetwork, ScaleMap

pytestmark = RUNS_KERNELS

ORDER = (3, 1, 4, 2, 7, 5, 6)
NETWORKS = {
    "sorted": network(range(1, 8), (33, 40)),
    "any order": network(ORDER, (33, 40)),
    "one feature": network((1,), (5, 3)),
    "no hidden layer": network(ORDER, ()),
    "one unit": network(range(1, 8), (1, 1)),
    "direct alone": network(ORDER, (), direct=True),
    "residual": network(range(7, 0, -1), (20,) * 4, residual=True),
    "residual and direct": network(ORDER, (20,) * 3, residual=True, direct=True),
    "wide": network(range(1, 20), (40, 50)),
}
RESIDUAL = NETWORKS["residual and direct"]
FORMS = ("multiply", "divide", "log_prob")
SOFT_CLIP = SCALE_MAPS["soft_clip"]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that a test's staircase has tiles outside, on and inside it, and slices of few rows."""
    for module in (_walk, _parameter_gradients):
        monkeypatch.setattr(module, "TILES", dict.fromkeys(module.TILES, Tile(16, 16, 16, 4, 2)))
    monkeypatch.setattr(_parameter_gradients, "_SLICE_ROWS", 16)


def _given(net: MaskedNetwork, plan_device: str, form: str, scale_map: ScaleMap) -> tuple:
    """What a kernel is told beside tensors: the plan, and what the network and its map are."""
    plan = [t for layer in ops.make_network_plan(net, plan_device) for t in layer]
    return plan, *prepare(net, None, torch.device("cpu"))[1], form == "divide", *scale_map.code


class _Block(torch.autograd.Function):
    """The kernels as an operation."""

    @staticmethod
    def forward(ctx, given, form, log_det, has_context, x, *others):  # type: ignore[no-untyped-def]
        context_terms, params = (others[0], others[1:]) if has_context else (None, others)
        z, total, saved = kernel.forward(x, params, context_terms, log_det, *given, True, form == "log_prob")
        ctx.given, ctx.form, ctx.has_context = given, form, has_context
        ctx.save_for_backward(x, saved, *params)
        ctx.mark_non_differentiable(*([z] if form == "log_prob" else []))
        return z, total

    @staticmethod
    def backward(ctx, grad_z, grad_total):  # type: ignore[no-untyped-def]
        x, saved, *params = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[4:])
        if not ctx.has_context:
            needs.insert(1, False)
        gz = None if ctx.form == "log_prob" else grad_z
        gx, gc, gparams = kernel.backward(gz, grad_total, x, params, saved, *ctx.given, needs, ctx.form == "log_prob")
        found = [gx, *([gc] if ctx.has_context else []), *gparams]
        return (None,) * 4 + tuple(g if g.numel() or not len(x) else None for g in found)


def _operation(
    net: MaskedNetwork, x: Tensor, form: str, scale_map: ScaleMap, log_det: Tensor | None, has_context: bool
) -> Callable:
    given = _given(net, x.device.type, form, scale_map)

    def operation(*inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        z, total = _Block.apply(given, form, log_det, has_context, *inputs)
        return total if form == "log_prob" else (z, total)

    return operation


def _definition(
    net: MaskedNetwork, x: Tensor, form: str, scale_map: ScaleMap, log_det: Tensor | None, has_context: bool
) -> Callable:
    def definition(x: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        context_terms, params = (others[0], others[1:]) if has_context else (None, others)
        shift, raw = reference.masked_mlp(x, net, params, context_terms=context_terms).unbind(-1)
        if form == "log_prob":
            total = reference.gaussian_log_prob(x, shift, raw, scale_map=scale_map)
            return total if log_det is None else log_det + total
        return reference.affine_autoregressive(x, shift, raw, inverse=form == "divide", scale_map=scale_map, log_det=log_det)

    return definition


def _inputs(
    net: MaskedNetwork, batch: int, device: str, has_context: bool = False, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """x, the context's terms where there are any, and the parameters."""
    generator = torch.Generator().manual_seed(batch + 1)
    sizes = [net.features, *([len(net.layers[0].out_degrees)] if has_context else [])]
    rows = [torch.randn(batch, size, generator=generator) for size in sizes]
    return [t.to(device, dtype) for t in (*rows, *parameters(net, torch.float32))]


def _assert_block_equals(
    net: MaskedNetwork,
    inputs: Sequence[Tensor],
    form: str = "multiply",
    scale_map: ScaleMap = SOFT_CLIP,
    log_det: Tensor | None = None,
    has_context: bool = False,
) -> None:
    """Outputs and gradients of float64 inputs, to the last digits."""
    log_det = None if log_det is None else log_det.double()
    made = [make(net, inputs[0], form, scale_map, log_det, has_context) for make in (_operation, _definition)]
    with torch.no_grad():
        outputs = made[1](*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    # Transposed, so that incoming gradients are not contiguous.
    weights = [
        torch.linspace(-1, 2, o.numel(), device=o.device).view(o.shape[::-1]).permute(*range(o.dim())[::-1]) for o in outputs
    ]
    found, expected = (outputs_and_gradients(function, inputs, weights) for function in made)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("has_context", [False, True], ids=["", "context"])
def test_networks(device: str, small_tiles: None, name: str, has_context: bool) -> None:
    net = NETWORKS[name]
    inputs = _inputs(net, 21, device, has_context)
    form = FORMS[(list(NETWORKS).index(name) + has_context) % 3]
    _assert_block_equals(net, inputs, form, log_det=torch.linspace(-1, 2, 21, device=device), has_context=has_context)


@pytest.mark.parametrize("name", ["wide", "residual and direct"])
def test_default_tiles(device: str, name: str) -> None:
    _assert_block_equals(NETWORKS[name], _inputs(NETWORKS[name], 19, device))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_activations(device: str, activation: str, residual: bool) -> None:
    """With residual connections a layer's sums are kept, whatever the activation."""
    net = network(ORDER, (12,) * (3 if residual else 2), activation=activation, residual=residual)
    _assert_block_equals(net, _inputs(net, 9, device))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCALE_MAPS)
def test_scale_maps(device: str, name: str, form: str) -> None:
    net = network((2, 1, 3), (6,))
    inputs = _inputs(net, 9, device)
    inputs[-2:] = [2 * t for t in inputs[-2:]]  # so that clamps are reached
    _assert_block_equals(net, inputs, form, SCALE_MAPS[name])


# The interpreter cuts bfloat16 off where a GPU rounds it: over a chain of layers that adds up.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, *([] if backends.interpreting() else [torch.bfloat16])])
@pytest.mark.parametrize("form", FORMS)
def test_as_accurate_as_pytorch(device: str, dtype: torch.dtype, form: str) -> None:
    net = network(range(1, 17), (48, 48), activation="tanh")
    operation, definition = (
        make(net, torch.empty(0, device=device), form, SOFT_CLIP, None, False) for make in (_operation, _definition)
    )
    assert_matches(operation, definition, _inputs(net, 60, device, dtype=dtype))


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_no_rows_and_one(device: str, batch: int, form: str) -> None:
    for net in (RESIDUAL, NETWORKS["one feature"]):
        _assert_block_equals(net, _inputs(net, batch, device, True), form, has_context=True)


def test_strides(device: str, small_tiles: None) -> None:
    net = NETWORKS["any order"]
    x, context_terms, *params = _inputs(net, 18, device, True)
    for rows in (padded(x), x[:1].expand(18, 7), padded(x)[::2]):
        terms = context_terms[:1].expand(len(rows), 33)
        _assert_block_equals(
            net, [rows, terms, *params], log_det=torch.ones(1, device=device).expand(len(rows)), has_context=True
        )


def test_slices_of_a_batch(device: str, small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parameter_gradients, "device_of", lambda t: Device(64, 1 << 30))
    monkeypatch.setattr(kernel, "_ROWS", 32)
    net = network(ORDER, (18, 9), direct=True)
    inputs = _inputs(net, 85, device)
    _assert_block_equals(net, inputs)
    x, *params = inputs
    given = _given(net, device, "multiply", SOFT_CLIP)
    z, total, saved = kernel.forward(x, params, None, None, *given, True, False)
    bare = kernel.forward(x, params, None, None, *given, False, False)
    assert torch.equal(bare[0], z) and torch.equal(bare[1], total) and not bare[2].numel()
    # As scores want it.
    wanted = [True, False, *[True] * len(params)]
    every, alone = (
        kernel.backward(z, total, x, params, saved, *given, needs, False)[0]
        for needs in (wanted, [True] + [False] * (len(params) + 1))
    )
    assert torch.equal(every, alone)


@pytest.mark.parametrize("form", FORMS)
def test_larger_networks_run_layer_by_layer(device: str, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(kernel, "_UNITS", 16)
    monkeypatch.setattr(kernel, "launch_walk", None)
    inputs = _inputs(RESIDUAL, 9, device, True)
    for log_det in (None, torch.linspace(-1, 2, 9, device=device)):
        _assert_block_equals(RESIDUAL, inputs, form, log_det=log_det, has_context=True)


@pytest.mark.parametrize("units", [512, 16])
@pytest.mark.parametrize("form", ["multiply", "divide"])
def test_the_operation_runs_on_them(device: str, monkeypatch: pytest.MonkeyPatch, units: int, form: str) -> None:
    monkeypatch.setattr(kernel, "_UNITS", units)
    x, context_terms, *params = _inputs(RESIDUAL, 9, device, True)

    def of(room: Any) -> Callable:
        def run(x: Tensor, terms: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
            options = {"form": form, "scale_map": SOFT_CLIP, "context_terms": terms}
            z, total = room.masked_autoregressive(x, RESIDUAL, params, **options)
            return z, total, room.masked_autoregressive_log_prob(x, RESIDUAL, params, **options)

        return run

    weights = [torch.linspace(-1, 2, n, device=device).view(shape) for n, shape in ((x.numel(), x.shape), (9, (9,)), (9, (9,)))]
    with backends.use("triton"):
        found = outputs_and_gradients(of(ops), [x, context_terms, *params], weights)
    expected = outputs_and_gradients(of(reference), [x, context_terms, *params], weights)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("units", [512, 16])
def test_gradients_of_some(device: str, monkeypatch: pytest.MonkeyPatch, units: int) -> None:
    """Each alone is what it is among all others; nothing is made for those that are not needed, nor for a missing bias."""
    monkeypatch.setattr(kernel, "_UNITS", units)
    x, context_terms, *params = _inputs(RESIDUAL, 9, device, True)
    params[3] = None  # type: ignore[call-overload]
    given = _given(RESIDUAL, device, "multiply", SOFT_CLIP)
    z, total, saved = kernel.forward(x, params, context_terms, None, *given, True, False)

    def gradients(needs: Sequence[bool]) -> list[Tensor]:
        gx, gc, gparams = kernel.backward(z, total, x, params, saved, *given, needs, False)
        return [gx, gc, *gparams]

    exist = [True, True, *(p is not None for p in params)]
    every = gradients(exist)
    for i in range(len(exist)):
        found = gradients([i == j and exist[j] for j in range(len(exist))])
        assert [bool(g.numel()) for g in found] == [i == j and exist[j] for j in range(len(exist))]
        assert torch.equal(found[i], every[i])


def test_an_absent_gradient_is_zero(device: str) -> None:
    net = NETWORKS["no hidden layer"]
    x, *params = _inputs(net, 9, device)
    given, needs = _given(net, device, "divide", SOFT_CLIP), [True, False, *[True] * len(params)]
    z, total, saved = kernel.forward(x, params, None, None, *given, True, False)
    for absent in (0, 1):
        zeros, nothing = [z, total], [z, total]
        zeros[absent], nothing[absent] = torch.zeros_like(zeros[absent]), None  # type: ignore[call-overload]
        (gx, _, gparams), (gx2, _, gparams2) = (
            kernel.backward(*grads, x, params, saved, *given, needs, False) for grads in (zeros, nothing)
        )
        assert all(map(torch.equal, [gx, *gparams], [gx2, *gparams2]))


def test_weights_outside_the_mask_are_not_read(device: str, small_tiles: None) -> None:
    inputs = _inputs(RESIDUAL, 6, device)
    layers = [*RESIDUAL.layers, None]
    given, needs = _given(RESIDUAL, device, "multiply", SOFT_CLIP), [True, False, *[True] * (len(inputs) - 1)]

    def results(x: Tensor, *params: Tensor) -> list[Tensor]:
        z, total, saved = kernel.forward(x, params, None, None, *given, True, False)
        gx, _, gparams = kernel.backward(z, total, x, params, saved, *given, needs, False)
        return [z, total, gx, *gparams]

    expected = results(*inputs)
    for i, layer in enumerate(layers):
        into, strict = (layer or layers[0]).in_degrees, layer is None or layer.strict  # type: ignore[union-attr]
        out = (layer or layers[-2]).out_degrees  # type: ignore[union-attr]
        mask = reference.degree_mask(torch.tensor(into), torch.tensor(out), strict).to(device)
        inputs[1 + 2 * i] = torch.where(mask, inputs[1 + 2 * i], torch.nan)
        assert not expected[3 + 2 * i][~mask].any()
    assert all(map(torch.equal, results(*inputs), expected))


def test_a_nan_stays_in_its_row(device: str, small_tiles: None) -> None:
    net = NETWORKS["sorted"]
    x, *params = _inputs(net, 20, device)
    broken = x.clone()
    broken[7, 3] = torch.nan
    given, needs = _given(net, device, "multiply", SOFT_CLIP), [True] + [False] * (len(params) + 1)
    rest = [i for i in range(20) if i != 7]
    found = []
    for t in (broken, x):
        z, total, saved = kernel.forward(t, params, None, None, *given, True, False)
        gx, _, _ = kernel.backward(torch.ones_like(z), torch.ones_like(total), t, params, saved, *given, needs, False)
        found.append((z, total, gx))
    for bad, clean in zip(*found, strict=True):
        assert bad[7].isnan().any() and torch.equal(bad[rest], clean[rest])
    assert found[0][0][7, 3:].isnan().all()
