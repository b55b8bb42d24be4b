from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from inverses import NETWORKS, ORDER, SOFT_CLIP, call, case, networks, results
from networks import network, parameters
from support import SCALE_MAPS, assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.bench.memory import peak_bytes
from fastgen.reference import MaskedLayer, MaskedNetwork
from fastgen.reference.autoregressive_inverse import FORMS

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_network = pytest.mark.parametrize("name", NETWORKS)
contexts = pytest.mark.parametrize("context", [False, True], ids=["", "context"])
forms = pytest.mark.parametrize("form", FORMS)


@every_network
@contexts
@forms
@pytest.mark.parametrize("rows", [1, 70])
def test_float64_equals_the_reference(cpu_variant: str, name: str, context: bool, form: str, rows: int) -> None:
    net = NETWORKS[name]
    given = case(net, rows, context)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    found = results(ops.autoregressive_inverse, net, given, form=form)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        found = list(call(ops.autoregressive_inverse, net, given, form=form))
    torch.testing.assert_close(found, expected[:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale_map", SCALE_MAPS)
@forms
def test_every_scale_map(cpu_variant: str, scale_map: str, form: str) -> None:
    net = NETWORKS["any order"]
    given = case(net, 40, False)
    options = {"form": form, "scale_map": SCALE_MAPS[scale_map]}
    expected = results(reference.autoregressive_inverse, net, given, **options)
    torch.testing.assert_close(results(ops.autoregressive_inverse, net, given, **options), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_every_activation(cpu_variant: str, activation: str, residual: bool) -> None:
    net = network(ORDER, (33, 33, 33), activation=activation, residual=residual)
    given = case(net, 37, True)
    expected = results(reference.autoregressive_inverse, net, given)
    torch.testing.assert_close(results(ops.autoregressive_inverse, net, given), expected, rtol=1e-10, atol=1e-11)


@forms
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, form: str) -> None:
    net = network(range(1, 25), (64, 100))
    given = case(net, 50, False, torch.float32)
    truth = results(reference.autoregressive_inverse, net, [t if t is None else t.double() for t in given], form=form)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    outcome = results(ops.autoregressive_inverse, net, given, form=form)
    for triple in zip(outcome, expected, truth, strict=True):
        # Against the norm of the whole: a row may hold one output that sees one input.
        assert_as_accurate(*(t.flatten() for t in triple))


@settings(max_examples=60, deadline=None, derandomize=True)
@drawn(net=networks(), rows=st.sampled_from([0, 1, 2, 3, 4, 7, 9, 33]), context=st.booleans(), form=st.sampled_from(FORMS))
def test_random_networks_equal_the_reference(net: MaskedNetwork, rows: int, context: bool, form: str) -> None:
    with backends.use("cpu"):
        given = case(net, rows, context)
        found = results(ops.autoregressive_inverse, net, given, form=form)
    expected = results(reference.autoregressive_inverse, net, given, form=form)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@forms
def test_the_network_maps_the_solution_back(form: str) -> None:
    net = NETWORKS["residual and direct"]
    w, terms, log_det, *params = case(net, 50, True)
    with torch.no_grad():
        v, total = call(ops.autoregressive_inverse, net, [w, terms, log_det, *params], form=form)
        shift, raw = ops.masked_mlp(v, net, params, context_terms=terms).unbind(-1)
    s = SOFT_CLIP(raw)
    back = (v - shift) * (-s).exp() if form == "multiply" else v * s.exp() + shift
    torch.testing.assert_close(back, w, rtol=1e-12, atol=1e-12)
    sign = 1 if form == "multiply" else -1
    torch.testing.assert_close(total, log_det + sign * s.sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["any order", "residual and direct", "one feature"])
def test_log_det_is_that_of_the_jacobian(name: str, form: str) -> None:
    net = NETWORKS[name]
    w, terms, _, *params = case(net, 1, True)

    def solve(row: Tensor) -> Tensor:
        return ops.autoregressive_inverse(row, net, params, form=form, scale_map=SOFT_CLIP, context_terms=terms[0])[0]

    _, total = ops.autoregressive_inverse(w[0], net, params, form=form, scale_map=SOFT_CLIP, context_terms=terms[0])
    jacobian = torch.autograd.functional.jacobian(solve, w[0])
    torch.testing.assert_close(total, torch.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form: str) -> None:
    net = network(ORDER, (9, 9, 9), activation="tanh", residual=True, direct=True)
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    torch.autograd.gradcheck(lambda *t: call(ops.autoregressive_inverse, net, t, form=form), given)


def test_second_derivatives_are_the_references() -> None:
    net = network((2, 1, 3), (6,), activation="tanh")
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    torch.autograd.gradgradcheck(lambda *t: call(ops.autoregressive_inverse, net, t), given)


def test_gradients_that_are_not_asked_for() -> None:
    net = NETWORKS["direct"]
    given = case(net, 5, True)
    everything = results(ops.autoregressive_inverse, net, given)[2:]
    for wanted in range(len(given)):
        leaves = [t if t is None else t.detach().requires_grad_(i == wanted) for i, t in enumerate(given)]
        outputs = call(ops.autoregressive_inverse, net, leaves)
        grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
        (found,) = torch.autograd.grad(outputs, [leaves[wanted]], grads)
        torch.testing.assert_close(found, everything[wanted], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1], ids=["v", "log_det"])
def test_a_gradient_of_one_output_alone(which: int) -> None:
    net = NETWORKS["any order"]
    for function in (ops.autoregressive_inverse, reference.autoregressive_inverse):
        leaves = [None if t is None else t.detach().requires_grad_() for t in case(net, 6, True)]
        output = call(function, net, leaves)[which]
        grads = torch.autograd.grad(output.sum(), leaves, allow_unused=True)
        if function is ops.autoregressive_inverse:
            found = grads
    for one, other in zip(found, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_any_strides_and_batch() -> None:
    net = NETWORKS["any order"]
    w, terms, log_det, *params = case(net, 12, True)
    v, total = call(ops.autoregressive_inverse, net, [w, terms, log_det, *params])
    for view in strided_like(w):
        torch.testing.assert_close(call(ops.autoregressive_inverse, net, [view, terms, log_det, *params])[0], v)
    shaped = [t.view(3, 4, *t.shape[1:]) for t in (w, terms, log_det)]
    found = call(ops.autoregressive_inverse, net, [*shaped, *params])
    torch.testing.assert_close(found, (v.view(3, 4, 7), total.view(3, 4)))
    # One context for all rows.
    one = call(ops.autoregressive_inverse, net, [shaped[0], terms[0], None, *params])
    many = call(ops.autoregressive_inverse, net, [w, terms[:1].expand(12, -1), None, *params])
    torch.testing.assert_close(one[0].view(12, 7), many[0])


def test_incoming_gradients_of_any_strides() -> None:
    net = NETWORKS["any order"]
    given = case(net, 12, False)
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    v, total = call(ops.autoregressive_inverse, net, leaves)
    tensors = [t for t in leaves if t is not None]
    ones = torch.ones((), dtype=v.dtype).expand(12)
    for grad in strided_like(torch.randn_like(v)):
        contiguous = grad.contiguous(), ones.contiguous()
        expected = torch.autograd.grad((v, total), tensors, contiguous, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad((v, total), tensors, (grad, ones), retain_graph=True), expected)


@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    net = NETWORKS["direct"]
    w = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    params = [p.requires_grad_() for p in parameters(net)]
    v, total = ops.autoregressive_inverse(w, net, params)
    assert v.shape == shape and total.shape == shape[:-1]
    grads = torch.autograd.grad(v.sum() + total.sum(), [w, *params])
    assert grads[0].shape == shape and all((g == 0).all() for g in grads[1:])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_spoils_no_other(cpu_variant: str, bad: float) -> None:
    net = NETWORKS["more features than a block"]
    given = case(net, 70, False)
    v, total = call(ops.autoregressive_inverse, net, given)
    given[0][11, 3] = bad
    spoilt, spoilt_total = call(ops.autoregressive_inverse, net, given)
    others = torch.arange(70) != 11
    assert torch.equal(spoilt[others], v[others]) and torch.equal(spoilt_total[others], total[others])
    assert not spoilt[11, 3].isfinite()


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_scales_are_finite_where_the_reference_is(form: str, dtype: torch.dtype) -> None:
    net = network(range(1, 9), (16,))
    w, _, _, *params = case(net, 20, False, dtype)
    # The last bias rules the raw log-scales: +-20, in turn.
    params[-1][1::2] = torch.tensor([20.0, -20.0] * 4, dtype=dtype)
    params[-2][1::2] *= 0.01
    with torch.no_grad():
        found = ops.autoregressive_inverse(w, net, params, form=form)
        expected = reference.autoregressive_inverse(w, net, params, form=form)
    for one, other in zip(found, expected, strict=True):
        # The reference multiplies what the mask hides by 0, which makes more NaN of an inf.
        assert (one.isfinite() | ~other.isfinite()).all()


def test_weights_outside_the_mask_are_not_read() -> None:
    net = NETWORKS["any order"]
    given = case(net, 40, False)
    expected = results(ops.autoregressive_inverse, net, given)
    spoilt = list(given)
    for i, layer in enumerate(net.layers):
        mask = reference.degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), strict=layer.strict)
        spoilt[3 + 2 * i] = torch.where(mask.bool(), given[3 + 2 * i], torch.nan)
    torch.testing.assert_close(results(ops.autoregressive_inverse, net, spoilt), expected)


@pytest.mark.parametrize("rows", [25, 60, 100])
def test_any_number_of_threads(rows: int) -> None:
    # Enough work for several threads; the more of them, the narrower their tiles, and sums are cut elsewhere.
    net = network(range(1, 20), (130, 130))
    given = case(net, rows, True, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5, 5):
            torch.set_num_threads(n)
            found.append(results(ops.autoregressive_inverse, net, given))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[-1], found[-2], strict=True))
    for outcome in found[1:]:
        torch.testing.assert_close(outcome, found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(backend: str) -> None:
    net = NETWORKS["any order"]
    plan = ops.make_network_plan(net)
    given = case(net, 6, True)

    def loss(*given: Tensor) -> Tensor:
        v, total = call(ops.autoregressive_inverse, net, given, plan=plan)
        return (v.square().sum(-1) + total).sum()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    leaves = [t.requires_grad_() for t in given if t is not None]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), expected)


def test_opcheck() -> None:
    net = NETWORKS["direct"]
    w, terms, log_det, *params = case(net, 3, True)
    plan = [t for layer in ops.make_network_plan(net) for t in layer]
    spec = ([layer.activation for layer in net.layers], [-1] * len(net.layers), True)
    operations = torch.ops.fastgen
    forward = (w, params, terms, log_det, plan, *spec, False, 0, 0.0, 0.0)
    torch.library.opcheck(operations.autoregressive_inverse.default, forward)
    backward = (w, log_det, w, w, params, terms, [True] * (2 + len(params)), plan, *spec, True, 3, 2.0, 0.0)
    torch.library.opcheck(operations.autoregressive_inverse_backward.default, backward)


def test_autocast_computes_in_float32() -> None:
    net = NETWORKS["any order"]
    given = case(net, 5, False, torch.float32)
    expected = call(ops.autoregressive_inverse, net, given)
    with torch.autocast("cpu", torch.bfloat16):
        found = call(ops.autoregressive_inverse, net, given)
        half = call(ops.autoregressive_inverse, net, [given[0].bfloat16(), *given[1:]])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert half[0].dtype == torch.float32


def test_other_dtypes_run_on_the_reference() -> None:
    net = NETWORKS["any order"]
    given = [*case(net, 5, False, torch.bfloat16)[:2], None, *parameters(net, torch.bfloat16)]
    with backends.use("auto"):
        v, total = call(ops.autoregressive_inverse, net, given)
    assert v.dtype == torch.bfloat16 and total.dtype == torch.float32


def _changed(**changes):  # type: ignore[no-untyped-def]
    net = NETWORKS["plain"]
    w, _, log_det, *params = case(net, 4, False)
    return {"w": w, "network": net, "params": params, "log_det": log_det, **changes}


OTHER = network(range(1, 8), (5,), outputs=3)
LOOSE = MaskedNetwork((MaskedLayer((1, 2), (1, 1, 2, 2)),), outputs=2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"form": "add"}, ValueError, "form: expected one of multiply, divide, found 'add'"),
        ({"w": torch.zeros(4, 6, dtype=torch.float64)}, ValueError, r"w: expected shape \(..., 7\), found \(4, 6\)"),
        ({"w": torch.zeros(4, 7, dtype=torch.int64)}, TypeError, "w: expected a floating dtype"),
        ({"w": torch.zeros(4, 7)}, TypeError, r"params\[0\]: expected w's dtype torch.float32"),
        ({"log_det": torch.zeros(3, dtype=torch.float64)}, ValueError, r"log_det: expected shape \(4,\), found \(3,\)"),
        ({"context_terms": torch.zeros(4, 3, dtype=torch.float64)}, ValueError, "context_terms: expected shape"),
        ({"params": []}, ValueError, "params: expected 6 tensors, found 0"),
        ({"network": OTHER, "params": parameters(OTHER)}, ValueError, "network: expected 2 outputs of each feature's degree"),
        (
            {"w": torch.zeros(4, 2, dtype=torch.float64), "network": LOOSE, "params": parameters(LOOSE)},
            ValueError,
            "network: expected outputs that see features of lower degree only",
        ),
    ],
)
def test_bad_arguments_are_named(changes, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        ops.autoregressive_inverse(**_changed(**changes))


def _raw(change) -> None:  # type: ignore[no-untyped-def]
    """Calls the boundary itself, past the checks in Python, with one argument of `change`."""
    net = NETWORKS["plain"]
    w, _, _, *params = case(net, 4, False)
    arguments = {
        "w": w,
        "params": params,
        "context_terms": None,
        "log_det_in": None,
        "plan": [t for layer in ops.make_network_plan(net) for t in layer],
        "activations": ["relu", "relu", "identity"],
        "residuals": [-1, -1, -1],
        "direct": False,
        "divide": False,
        "kind": 0,
        "first": 0.0,
        "second": 0.0,
        "v": torch.empty_like(w),
        "log_det": w.new_empty(4),
    }
    change(arguments)
    plan = {k: arguments.pop(k) for k in ("activations", "residuals", "direct")}
    arguments["plan"] = backends.compiled().NetworkPlan(arguments["plan"], **plan)
    backends.compiled().autoregressive_inverse_forward(**arguments)


def _see_everything(arguments) -> None:  # type: ignore[no-untyped-def]
    plan = arguments["plan"]
    plan[10], plan[11] = torch.full_like(plan[10], 40), torch.zeros_like(plan[11])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(kind=7), "kind: expected a scale map from 0 to 6"),
        (lambda a: a.update(v=torch.empty(4, 6, dtype=torch.float64)), "v: expected"),
        (lambda a: a.update(log_det=torch.empty(3, dtype=torch.float64)), "log_det: expected"),
        (lambda a: a.update(w=a["w"][:, :6]), "w: expected"),
        (lambda a: a.update(params=a["params"][:4]), "params: expected 6 entries, found 4"),
        (_see_everything, "plan: expected no output to see its own feature or a later one"),
    ],
)
def test_the_boundary_checks_again(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        _raw(change)


def _make_call(features: int):  # type: ignore[no-untyped-def]
    net = network(range(1, features + 1), (64, 64))
    given = [None if t is None else t.requires_grad_() for t in case(net, 256, False, torch.float32)]

    def run() -> object:
        v, total = call(ops.autoregressive_inverse, net, given)
        return torch.autograd.grad(v.sum() + total.sum(), [t for t in given if t is not None])

    return run


def test_memory_is_that_of_the_features_and_the_hidden_units() -> None:
    few, many = (peak_bytes(partial(_make_call, features)) for features in (64, 512))
    # Inputs, outputs, gradients and weights grow eightfold; a pass of the network kept per feature would be 64-fold.
    assert many < 10 * few
