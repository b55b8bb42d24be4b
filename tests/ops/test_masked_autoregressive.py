from __future__ import annotations

from collections.abc import Callable

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

NAMES = ("masked_autoregressive", "masked_autoregressive_log_prob")
every_name = pytest.mark.parametrize("name", NAMES)
every_network = pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
contexts = pytest.mark.parametrize("context", [False, True], ids=["", "context"])
forms = pytest.mark.parametrize("form", FORMS)


def tupled(module, name: str) -> Callable[..., tuple[Tensor, ...]]:  # type: ignore[no-untyped-def]
    """The operation of a module, its results a tuple whatever they are."""
    function = getattr(module, name)

    def run(*args, **options) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        found = function(*args, **options)
        return found if isinstance(found, tuple) else (found,)

    return run


def both(name: str, net: MaskedNetwork, given, **options) -> tuple[list[Tensor], list[Tensor]]:  # type: ignore[no-untyped-def]
    """Outputs and gradients of the operation and of its definition."""
    return results(tupled(ops, name), net, given, **options), results(tupled(reference, name), net, given, **options)


def without_gradients(name: str, net: MaskedNetwork, given, **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return list(call(tupled(ops, name), net, given, **options))


def test_the_definition_is_the_formula() -> None:
    net = NETWORKS["any order"]
    x, terms, log_det, *params = case(net, 6, True)
    shift, raw = reference.masked_mlp(x, net, params, context_terms=terms).unbind(-1)
    s = raw / (1 + raw.abs() / 2)
    for form, z, total in (("multiply", (x - shift) / s.exp(), -s.sum(-1)), ("divide", x * s.exp() + shift, s.sum(-1))):
        found = call(reference.masked_autoregressive, net, [x, terms, log_det, *params], form=form)
        torch.testing.assert_close(found, (z, total + log_det), rtol=1e-13, atol=1e-13)
        density = call(reference.masked_autoregressive_log_prob, net, [x, terms, log_det, *params], form=form)
        normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        torch.testing.assert_close(density, normal.log_prob(z).sum(-1) + total + log_det, rtol=1e-13, atol=1e-13)


@every_network
@contexts
@forms
@every_name
@pytest.mark.parametrize("rows", [1, 70])
def test_float64_equals_the_reference(
    cpu_variant: str, net: MaskedNetwork, context: bool, form: str, name: str, rows: int
) -> None:
    given = case(net, rows, context)
    found, expected = both(name, net, given, form=form)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    plain = without_gradients(name, net, given, form=form)
    torch.testing.assert_close(plain, expected[: len(plain)], rtol=1e-12, atol=1e-12)


@forms
@every_name
@pytest.mark.parametrize("scale_map", SCALE_MAPS)
def test_every_scale_map(cpu_variant: str, scale_map: str, form: str, name: str) -> None:
    net = NETWORKS["any order"]
    found, expected = both(name, net, case(net, 40, False), form=form, scale_map=SCALE_MAPS[scale_map])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    net = network(ORDER, (33, 33, 33), activation=activation, residual=True)
    given = case(net, 37, True)
    found, expected = both(NAMES[0], net, given)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(without_gradients(NAMES[0], net, given), expected[:2], rtol=1e-11, atol=1e-12)


@forms
@every_name
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, form: str, name: str) -> None:
    net = network(range(1, 33), (128, 150))
    given = case(net, 100, False, torch.float32)
    truth = results(tupled(reference, name), net, [t if t is None else t.double() for t in given], form=form)
    found, expected = both(name, net, given, form=form)
    plain = without_gradients(name, net, given, form=form)
    for triple in (*zip(found, expected, truth, strict=True), *zip(plain, expected, truth, strict=False)):
        # Against the norm of the whole: a row may hold one output that sees one input.
        assert_as_accurate(*(t.flatten() for t in triple))


@settings(max_examples=60, deadline=None, derandomize=True)
@drawn(
    net=networks(),
    rows=st.sampled_from([0, 1, 2, 3, 15, 33, 64]),
    context=st.booleans(),
    form=st.sampled_from(FORMS),
    name=st.sampled_from(NAMES),
)
def test_random_networks_equal_the_reference(net: MaskedNetwork, rows: int, context: bool, form: str, name: str) -> None:
    given = case(net, rows, context)
    with backends.use("cpu"):
        found, expected = both(name, net, given, form=form)
        plain = without_gradients(name, net, given, form=form)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plain, expected[: len(plain)], rtol=1e-10, atol=1e-10)


@forms
def test_the_inverse_of_the_same_form_undoes_it(form: str) -> None:
    net = NETWORKS["residual and direct"]
    x, terms, log_det, *params = case(net, 50, True)
    with torch.no_grad():
        z, total = call(ops.masked_autoregressive, net, [x, terms, log_det, *params], form=form)
        back, undone = call(ops.autoregressive_inverse, net, [z, terms, total, *params], form=form)
    torch.testing.assert_close(back, x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(undone, log_det, rtol=1e-11, atol=1e-11)


@forms
@pytest.mark.parametrize("name", ["any order", "residual and direct", "one feature"])
def test_log_det_is_that_of_the_jacobian(name: str, form: str) -> None:
    net = NETWORKS[name]
    x, terms, _, *params = case(net, 1, True)

    def forward(row: Tensor) -> tuple[Tensor, Tensor]:
        return ops.masked_autoregressive(row, net, params, form=form, scale_map=SOFT_CLIP, context_terms=terms[0])

    jacobian = torch.autograd.functional.jacobian(lambda row: forward(row)[0], x[0])
    torch.testing.assert_close(forward(x[0])[1], torch.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)


@forms
@every_name
def test_gradcheck(form: str, name: str) -> None:
    net = network(ORDER, (9, 9, 9), activation="tanh", residual=True, direct=True)
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    torch.autograd.gradcheck(lambda *t: call(tupled(ops, name), net, t, form=form), given)


@every_name
def test_second_derivatives_are_the_references(name: str) -> None:
    net = network((2, 1, 3), (6,), activation="tanh")
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    torch.autograd.gradgradcheck(lambda *t: call(tupled(ops, name), net, t), given)


@every_name
def test_gradients_that_are_not_asked_for(name: str) -> None:
    net = NETWORKS["direct"]
    given = case(net, 5, True)
    outputs = len(call(tupled(ops, name), net, given))
    everything = results(tupled(ops, name), net, given)[outputs:]
    for wanted in range(len(given)):
        leaves = [t if t is None else t.detach().requires_grad_(i == wanted) for i, t in enumerate(given)]
        found = call(tupled(ops, name), net, leaves)
        grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in found]
        (grad,) = torch.autograd.grad(found, [leaves[wanted]], grads)
        torch.testing.assert_close(grad, everything[wanted], rtol=1e-12, atol=1e-12)


@forms
@pytest.mark.parametrize("which", [0, 1], ids=["z", "log_det"])
def test_a_gradient_of_one_output_alone(which: int, form: str) -> None:
    net = NETWORKS["any order"]
    found = []
    for function in (ops.masked_autoregressive, reference.masked_autoregressive):
        leaves = [None if t is None else t.detach().requires_grad_() for t in case(net, 6, True)]
        output = call(function, net, leaves, form=form)[which]
        found.append(torch.autograd.grad(output.square().sum(), leaves, allow_unused=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_no_gradient_of_z_meets_no_infinite_scale() -> None:
    net = network((1,), ())
    x, params = torch.ones(2, 1), parameters(net, torch.float32)
    params[1].copy_(torch.tensor([0.0, -200.0]))
    params = [p.requires_grad_() for p in params]
    z, log_det = ops.masked_autoregressive(x, net, params)
    assert z.isinf().all()
    assert torch.equal(torch.autograd.grad(log_det.sum(), params[1])[0], torch.tensor([0.0, -2.0]))


@every_name
def test_any_strides_and_batch(name: str) -> None:
    net = NETWORKS["any order"]
    function = tupled(ops, name)
    x, terms, log_det, *params = case(net, 12, True)
    expected = call(function, net, [x, terms, log_det, *params])
    for view in strided_like(x):
        torch.testing.assert_close(call(function, net, [view, terms, log_det, *params]), expected)
    shaped = [t.view(3, 4, *t.shape[1:]) for t in (x, terms, log_det)]
    found = call(function, net, [*shaped, *params])
    torch.testing.assert_close(found, tuple(t.view(3, 4, *t.shape[1:]) for t in expected))
    # One context for all rows.
    one = call(function, net, [shaped[0], terms[0], None, *params])
    many = call(function, net, [x, terms[:1].expand(12, -1), None, *params])
    torch.testing.assert_close([t.flatten() for t in one], [t.flatten() for t in many])


def test_incoming_gradients_of_any_strides() -> None:
    net = NETWORKS["any order"]
    leaves = [None if t is None else t.detach().requires_grad_() for t in case(net, 12, False)]
    z, total = call(ops.masked_autoregressive, net, leaves)
    tensors = [t for t in leaves if t is not None]
    ones = torch.ones((), dtype=z.dtype).expand(12)
    for grad in strided_like(torch.randn_like(z)):
        contiguous = grad.contiguous(), ones.contiguous()
        expected = torch.autograd.grad((z, total), tensors, contiguous, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad((z, total), tensors, (grad, ones), retain_graph=True), expected)


@every_name
@pytest.mark.parametrize("shape", [(0, 7), (2, 0, 7)])
def test_no_rows(name: str, shape: tuple[int, ...]) -> None:
    net = NETWORKS["direct"]
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    params = [p.requires_grad_() for p in parameters(net)]
    outputs = tupled(ops, name)(x, net, params)
    assert [t.shape for t in outputs] == [shape, shape[:-1]][-len(outputs) :]
    grads = torch.autograd.grad(sum(t.sum() for t in outputs), [x, *params])
    assert grads[0].shape == shape and all((g == 0).all() for g in grads[1:])


@every_name
@pytest.mark.parametrize("gradients", [False, True], ids=["", "gradients"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_spoils_no_other(cpu_variant: str, name: str, gradients: bool, bad: float) -> None:
    net = NETWORKS["more features than a block"]
    given = [None if t is None else t.requires_grad_(gradients) for t in case(net, 70, False)]
    clean = call(tupled(ops, name), net, given)
    x = given[0].detach().clone()
    x[11, 3] = bad
    spoilt = call(tupled(ops, name), net, [x, *given[1:]])
    others = torch.arange(70) != 11
    assert all(torch.equal(a[others], b[others]) for a, b in zip(clean, spoilt, strict=True))
    assert not spoilt[-1][11].isfinite() and not spoilt[0][11].isfinite().all()


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_scales_are_finite_where_the_reference_is(form: str, dtype: torch.dtype) -> None:
    net = network(range(1, 9), (16,))
    given = case(net, 20, False, dtype)
    # The last bias rules the raw log-scales: +-20, in turn.
    given[-1][1::2] = torch.tensor([20.0, -20.0] * 4, dtype=dtype)
    given[-2][1::2] *= 0.01
    for name in NAMES:
        found, expected = both(name, net, given, form=form, scale_map=reference.ScaleMap())
        for one, other in zip(found, expected, strict=True):
            assert (one.isfinite() | ~other.isfinite()).all()


@every_name
def test_weights_outside_the_mask_are_not_read(name: str) -> None:
    net = NETWORKS["any order"]
    given = case(net, 40, False)
    expected, plain = results(tupled(ops, name), net, given), without_gradients(name, net, given)
    for i, layer in enumerate(net.layers):
        mask = reference.degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), strict=layer.strict)
        given[3 + 2 * i] = torch.where(mask.bool(), given[3 + 2 * i], torch.nan)
    torch.testing.assert_close(results(tupled(ops, name), net, given), expected)
    torch.testing.assert_close(without_gradients(name, net, given), plain)


@pytest.mark.parametrize("rows", [25, 60, 100])
def test_any_number_of_threads(rows: int) -> None:
    # Enough work for several threads; with more of them than tiles of rows, the networks go layer by layer.
    net = network(range(1, 20), (130, 130))
    given = case(net, rows, True, torch.float32)
    before, found, plain = torch.get_num_threads(), [], []
    try:
        for n in (1, 2, 5, 5):
            torch.set_num_threads(n)
            found.append(results(ops.masked_autoregressive, net, given))
            plain.append([*without_gradients(NAMES[0], net, given), *without_gradients(NAMES[1], net, given)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[-1], found[-2], strict=True))
    for outcomes in (found, plain):
        for outcome in outcomes[1:]:
            torch.testing.assert_close(outcome, outcomes[0], rtol=1e-4, atol=1e-4)


@every_name
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(name: str, backend: str) -> None:
    net = NETWORKS["any order"]
    plan = ops.make_network_plan(net)
    given = case(net, 6, True)
    function = getattr(ops, name)

    def loss(*given: Tensor) -> Tensor:
        found = call(function, net, given, plan=plan)
        return found.square().sum() if isinstance(found, Tensor) else (found[0].square().sum(-1) + found[1]).sum()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    leaves = [t.requires_grad_() for t in given if t is not None]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*leaves), loss(*leaves))


@pytest.mark.parametrize("log_prob", [False, True], ids=["", "log_prob"])
@pytest.mark.parametrize("count", [1, 2], ids=["", "stack"])
def test_opcheck(count: int, log_prob: bool) -> None:
    net = NETWORKS["direct"]
    x, terms, log_det, *params = case(net, 3, True)
    plan = [t for layer in ops.make_network_plan(net) for t in layer] * count
    activations = [layer.activation for layer in net.layers] * count
    of_blocks = [[value] * count for value in (True, False, 3, 2.0, 0.0)]
    spec = [len(net.layers)] * count, activations, [-1] * len(activations), *of_blocks
    contexts, params = [terms] * count, params * count
    operations = torch.ops.fastgen
    forward = (x, params, contexts, log_det, plan, *spec, True, log_prob)
    torch.library.opcheck(operations.masked_autoregressive.default, forward)
    _, _, saved = operations.masked_autoregressive(*forward)
    needs = [True] * (1 + count + len(params))
    backward = (None if log_prob else x, log_det, x, params, saved, plan, *spec, needs, log_prob)
    torch.library.opcheck(operations.masked_autoregressive_backward.default, backward)


@every_name
def test_autocast_computes_the_network_in_its_dtype(name: str) -> None:
    net = NETWORKS["any order"]
    given = [None if t is None else t.requires_grad_() for t in case(net, 5, True, torch.float32)]
    function = tupled(ops, name)
    exact = call(function, net, given)
    with backends.use("auto"), torch.autocast("cpu", torch.bfloat16):
        shift, raw = ops.masked_mlp(given[0], net, given[3:], context_terms=given[1]).float().unbind(-1)
        z, total = ops.affine_autoregressive(given[0], shift, raw, scale_map=SOFT_CLIP, log_det=given[2])
        found = call(function, net, given)
    expected = (z, total) if name == NAMES[0] else (ops.gaussian_log_prob(z) + total,)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(found[-1].sum(), [given[0], *given[3:]]))


def test_other_dtypes_run_on_the_reference() -> None:
    net = NETWORKS["any order"]
    given = [*case(net, 5, False, torch.bfloat16)[:2], None, *parameters(net, torch.bfloat16)]
    with backends.use("auto"):
        z, total = call(ops.masked_autoregressive, net, given)
        log_prob = call(ops.masked_autoregressive_log_prob, net, given)
    assert z.dtype == torch.bfloat16 and total.dtype == log_prob.dtype == torch.float32


def _changed(**changes):  # type: ignore[no-untyped-def]
    net = NETWORKS["plain"]
    x, _, log_det, *params = case(net, 4, False)
    return {"x": x, "network": net, "params": params, "log_det": log_det, **changes}


OTHER = network(range(1, 8), (5,), outputs=3)
LOOSE = MaskedNetwork((MaskedLayer((1, 2), (1, 1, 2, 2)),), outputs=2)


@every_name
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"form": "add"}, ValueError, "form: expected one of multiply, divide, found 'add'"),
        ({"x": torch.zeros(4, 6, dtype=torch.float64)}, ValueError, r"x: expected shape \(..., 7\), found \(4, 6\)"),
        ({"x": torch.zeros(4, 7, dtype=torch.int64)}, TypeError, "x: expected a floating dtype"),
        ({"x": torch.zeros(4, 7), "log_det": None}, TypeError, r"params\[0\]: expected x's dtype torch.float32"),
        ({"log_det": torch.zeros(3, dtype=torch.float64)}, ValueError, r"log_det: expected shape \(4,\), found \(3,\)"),
        ({"context_terms": torch.zeros(4, 3, dtype=torch.float64)}, ValueError, "context_terms: expected shape"),
        ({"params": []}, ValueError, "params: expected 6 tensors, found 0"),
        ({"network": OTHER, "params": parameters(OTHER)}, ValueError, "network: expected 2 outputs of each feature's degree"),
        (
            {"x": torch.zeros(4, 2, dtype=torch.float64), "network": LOOSE, "params": parameters(LOOSE)},
            ValueError,
            "network: expected outputs that see features of lower degree only",
        ),
    ],
)
def test_bad_arguments_are_named(name: str, changes, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        getattr(ops, name)(**_changed(**changes))


def _boundary() -> tuple[dict, dict, dict]:
    """The arguments of the boundary's stack, of its forward and of its backward pass, which tests spoil."""
    net = NETWORKS["plain"]
    x, _, log_det, *params = case(net, 4, False)
    stack = {
        "plan": [t for layer in ops.make_network_plan(net) for t in layer] * 2,
        "layers": [3, 3],
        "activations": ["relu", "relu", "identity"] * 2,
        "residuals": [-1] * 6,
        **{name: [value] * 2 for name, value in (("direct", False), ("divide", False), ("kind", 0))},
        **{name: [0.0] * 2 for name in ("first", "second")},
    }
    given = {"x": x, "params": params * 2, "log_prob": False, "saved": x.new_empty(4 * (2 * (33 + 40 + 14) + 7))}
    forward = {**given, "context_terms": [None] * 2, "log_det_in": None, "z": torch.empty_like(x), "total": x.new_empty(4)}
    grads = {"grad_x": None, "grad_between": torch.empty_like(x), "grad_contexts": [None] * 2, "grad_params": [None] * 12}
    return stack, forward, {**given, **grads, "grad_z": x, "grad_total": log_det}


def _run(stack: dict, forward: dict, backward: dict) -> None:
    made = backends.compiled().MaskedAutoregressiveStack(**stack)
    made.forward(**forward)
    made.backward(**backward)


def test_the_boundary_takes_what_fits() -> None:
    _run(*_boundary())


def _see_everything(plan: list[Tensor]) -> None:
    plan[22], plan[23] = torch.full_like(plan[22], 40), torch.zeros_like(plan[23])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(kind=[0, 7]), "kind: expected a scale map from 0 to 6"),
        (lambda s: s.update(kind=[0]), "kind: expected 2 entries, found 1"),
        (lambda s: s.update(layers=[]), "layers: expected at least one block"),
        (lambda s: s.update(layers=[3, -1]), "layers: expected at least 1"),
        (lambda s: s.update(layers=[3, 2**40]), "layers: expected at least 1"),
        (lambda s: s.update(layers=[2, 4]), "activations: expected identity in the last layer"),
        (lambda s: s.update(direct=[True, False]), "plan: expected"),
        (lambda s: s["plan"].pop(), "plan: expected 12 entries, found 11"),
        (lambda s: s["plan"].append(None), "plan: expected 24 entries, found 25"),
        (lambda s: _see_everything(s["plan"]), "plan: expected no output to see its own feature or a later one"),
    ],
)
def test_the_boundary_checks_the_blocks(change, message: str) -> None:  # type: ignore[no-untyped-def]
    stack, *_ = _boundary()
    change(stack)
    with pytest.raises(ValueError, match=message):
        backends.compiled().MaskedAutoregressiveStack(**stack)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saved": torch.empty(4 * 73, dtype=torch.float64)}, "saved: expected"),
        ({"x": torch.empty(4, 6, dtype=torch.float64)}, "x: expected"),
        ({"x": torch.empty(4, 7)}, "params.0.: expected float32, found float64"),
        ({"params": []}, "params: expected 12 entries, found 0|grad_params: expected 0"),
        ({"params": [None] * 12}, "params.0.: expected a tensor, found None"),
    ],
)
@pytest.mark.parametrize("direction", [1, 2], ids=["forward", "backward"])
def test_the_boundary_checks_what_is_read(direction: int, changes: dict, message: str) -> None:
    given = _boundary()
    given[direction].update(changes)
    with pytest.raises((TypeError, ValueError), match=message):
        _run(*given)


@pytest.mark.parametrize(
    ("direction", "changes", "message"),
    [
        (1, {"z": torch.empty(4, 6, dtype=torch.float64)}, "z: expected shape"),
        (1, {"z": None}, "z: expected a tensor, found None"),
        (1, {"z": None, "log_prob": True, "saved": None}, "z: expected a tensor, found None"),
        (1, {"total": torch.empty(3, dtype=torch.float64)}, "total: expected"),
        (1, {"context_terms": [None]}, "context_terms: expected 2 entries, found 1"),
        (2, {"grad_total": torch.empty(3, dtype=torch.float64)}, "grad_total: expected"),
        (2, {"log_prob": True}, "grad_z: expected None with log_prob"),
        (2, {"grad_z": torch.empty(4, 6, dtype=torch.float64)}, "grad_z: expected"),
        (2, {"grad_between": None}, "grad_between: expected a tensor, found None"),
        (2, {"grad_between": torch.empty(3, 7, dtype=torch.float64)}, "grad_between: expected"),
        (2, {"grad_contexts": []}, "grad_contexts: expected 2 entries, found 0"),
        (2, {"grad_params": [None]}, "grad_params: expected 12 entries, found 1"),
    ],
)
def test_the_boundary_checks_what_comes_out_and_in(direction: int, changes: dict, message: str) -> None:
    given = _boundary()
    given[direction].update(changes)
    with pytest.raises(ValueError, match=message):
        _run(*given)


def test_a_plan_that_changes_later_is_not_read_again() -> None:
    stack, forward, backward = _boundary()
    made = backends.compiled().MaskedAutoregressiveStack(**stack)
    made.forward(**forward)
    expected = forward["z"].clone()
    for t in stack["plan"]:
        if t is not None:
            t.fill_(10**6)
    made.forward(**forward)
    made.backward(**backward)
    assert torch.equal(forward["z"], expected)


def _make_call():  # type: ignore[no-untyped-def]
    net = network(range(1, 65), (256, 256))
    x, params, plan = torch.randn(20_000, 64), parameters(net, torch.float32), ops.make_network_plan(net)
    ops.masked_autoregressive(x[:256], net, params, plan=plan)
    return lambda: ops.masked_autoregressive(x, net, params, plan=plan)


def test_without_gradients_nothing_of_the_batch_is_kept_but_z() -> None:
    # z takes 5 MB; shift and log-scale would take 10 more.
    assert peak_bytes(_make_call) < 9 << 20
