from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from networks import network, parameters
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import MaskedLayer, MaskedNetwork

pytestmark = pytest.mark.usefixtures("cpu_backend")


def case(net: MaskedNetwork, rows: int, context: bool, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    """x, context_terms or None, and the parameters."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, net.features, generator=generator, dtype=torch.float64).to(dtype)
    terms = torch.randn(rows, len(net.layers[0].out_degrees), generator=generator, dtype=torch.float64).to(dtype)
    return [x, terms if context else None, *parameters(net, dtype)]


def call(function, net: MaskedNetwork, given: Sequence[Tensor | None], **options) -> Tensor:  # type: ignore[no-untyped-def]
    return function(given[0], net, list(given[2:]), context_terms=given[1], **options)


def results(function, net: MaskedNetwork, given: Sequence[Tensor | None]) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The outputs and all gradients for a gradient that differs from element to element."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    y = call(function, net, leaves)
    grad = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t is not None], grad)]


def without_gradients(net: MaskedNetwork, given: Sequence[Tensor | None]) -> Tensor:
    with torch.no_grad():
        return call(ops.masked_mlp, net, given)


ORDER = (3, 1, 4, 2, 7, 5, 6)
NETWORKS = {
    "plain": network(range(1, 8), (33, 40)),
    "reversed": network(range(7, 0, -1), (33, 40)),
    "any order": network(ORDER, (33, 40)),
    "one feature": network((1,), (5, 3)),
    "no hidden layer": network(ORDER, (), outputs=3),
    "one unit": network(range(1, 8), (1, 1)),
    "direct": network(ORDER, (40,), direct=True),
    "direct alone": network(ORDER, (), direct=True),
    "residual": network(range(1, 8), (33,) * 5, residual=True),
    "residual and direct": network(ORDER, (20,) * 3, residual=True, direct=True),
    "wide": network(range(1, 40), (130, 257), outputs=1),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
contexts = pytest.mark.parametrize("context", [False, True], ids=["", "context"])
every_activation = pytest.mark.parametrize("activation", reference.ACTIVATIONS)


@every_network
@contexts
@pytest.mark.parametrize("rows", [1, 70])
def test_float64_equals_the_reference(cpu_variant: str, name: str, context: bool, rows: int) -> None:
    net = NETWORKS[name]
    given = case(net, rows, context)
    expected = results(reference.masked_mlp, net, given)
    torch.testing.assert_close(results(ops.masked_mlp, net, given), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(without_gradients(net, given), expected[0], rtol=1e-11, atol=1e-12)


@every_activation
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_every_activation(cpu_variant: str, activation: str, residual: bool) -> None:
    net = network(ORDER, (33, 33, 33), activation=activation, residual=residual)
    given = case(net, 37, True)
    expected = results(reference.masked_mlp, net, given)
    torch.testing.assert_close(results(ops.masked_mlp, net, given), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(without_gradients(net, given), expected[0], rtol=1e-11, atol=1e-12)


@every_activation
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, activation: str) -> None:
    net = network(range(1, 33), (128, 300), activation=activation)
    given = case(net, 100, False, torch.float32)
    truth = results(reference.masked_mlp, net, [t if t is None else t.double() for t in given])
    expected = results(reference.masked_mlp, net, given)
    outcome = results(ops.masked_mlp, net, given)
    outcome[0] = without_gradients(net, given)
    for triple in zip(outcome, expected, truth, strict=True):
        # Against the norm of the whole: a row may hold one output that sees one input.
        assert_as_accurate(*(t.flatten() for t in triple))


@pytest.mark.parametrize("name", ["any order", "residual and direct", "one feature", "direct alone"])
def test_gradcheck(name: str) -> None:
    net = NETWORKS[name]
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    smooth = MaskedNetwork(
        tuple(
            MaskedLayer(x.in_degrees, x.out_degrees, x.strict, "tanh" if x is not net.layers[-1] else "identity", x.residual)
            for x in net.layers
        ),
        net.direct,
        net.outputs,
    )
    torch.autograd.gradcheck(lambda *t: call(ops.masked_mlp, smooth, t), given)


def test_gradgradcheck() -> None:
    net = network((2, 1, 3), (5, 5, 5), activation="tanh", residual=True, direct=True)
    given = [t.requires_grad_() for t in case(net, 2, True) if t is not None]
    torch.autograd.gradgradcheck(lambda *t: call(ops.masked_mlp, net, t), given)


def test_weights_outside_the_mask_are_not_read_and_get_no_gradient(cpu_variant: str) -> None:
    for name in ("any order", "residual and direct"):
        net = NETWORKS[name]
        given = case(net, 70, False, torch.float32)
        expected, plain = results(ops.masked_mlp, net, given), without_gradients(net, given)
        masks = [reference.degree_mask(torch.tensor(x.in_degrees), torch.tensor(x.out_degrees), x.strict) for x in net.layers]
        if net.direct:
            masks.append(
                reference.degree_mask(torch.tensor(net.layers[0].in_degrees), torch.tensor(net.layers[-1].out_degrees), True)
            )
        for i, mask in enumerate(masks):
            given[2 + 2 * i] = torch.where(mask, given[2 + 2 * i], torch.nan)
        assert all(map(torch.equal, results(ops.masked_mlp, net, given), expected))
        assert torch.equal(without_gradients(net, given), plain)
        assert not any(g[~mask].any() for g, mask in zip(expected[2::2], masks, strict=True))


def test_a_bad_row_leaves_the_others_alone(cpu_variant: str) -> None:
    net = NETWORKS["wide"]
    given = case(net, 70, True, torch.float32)
    clean = [without_gradients(net, given), call(ops.masked_mlp, net, [t.requires_grad_() for t in given if t is not None])]
    bad = [t.detach().clone() for t in given if t is not None]
    bad[0][7, 3] = torch.nan
    others = torch.arange(70) != 7
    dirty = [without_gradients(net, bad), call(ops.masked_mlp, net, [t.requires_grad_() for t in bad])]
    for before, after in zip(clean, dirty, strict=True):
        assert torch.equal(before[others], after[others])
        assert after[7, 4:].isnan().all()  # every later feature depends on the bad one


@pytest.mark.parametrize("rows", [1, 37])
def test_any_strides(cpu_variant: str, rows: int) -> None:
    net = NETWORKS["any order"]
    given = case(net, rows, True, torch.float32)
    expected, plain = results(ops.masked_mlp, net, given), without_gradients(net, given)
    for i in range(3):
        for strided in strided_like(given[i]):
            now = [strided if j == i else t for j, t in enumerate(given)]
            assert all(map(torch.equal, results(ops.masked_mlp, net, now), expected))
            assert torch.equal(without_gradients(net, now), plain)


def test_any_strides_of_incoming_gradients() -> None:
    net = network(ORDER, (20,), outputs=1, direct=True)
    given = [t.requires_grad_() for t in case(net, 19, True)]
    y = call(ops.masked_mlp, net, given).squeeze(-1)
    for grad in (*strided_like(torch.randn(19, 7).double()), torch.ones(()).double().expand(19, 7)):
        pair = [torch.autograd.grad(y, given, g, retain_graph=True) for g in (grad, grad.contiguous())]
        assert all(map(torch.equal, *pair))


@pytest.mark.parametrize(
    ("lead", "terms"), [((0,), (0,)), ((2, 0), ()), ((), ()), ((2, 3), (3,)), ((2, 3), (2, 1)), ((4,), ())], ids=str
)
def test_leading_dimensions_and_broadcast_contexts(lead: tuple[int, ...], terms: tuple[int, ...]) -> None:
    net = NETWORKS["any order"]
    given = case(net, 1, True)
    given[:2] = torch.randn(*lead, 7, dtype=torch.float64), torch.randn(*terms, 33, dtype=torch.float64)
    outcome, expected = (results(f, net, given) for f in (ops.masked_mlp, reference.masked_mlp))
    torch.testing.assert_close(outcome, expected)
    assert outcome[0].shape == (*lead, 7, 2)
    torch.testing.assert_close(without_gradients(net, given), expected[0])


@pytest.mark.parametrize("wanted", range(9))
def test_one_gradient_alone(wanted: int) -> None:
    net = NETWORKS["residual and direct"]
    given = case(net, 9, True)
    index = [0, 1, 2, 3, 4, 5, 6, 9, 10][wanted]
    expected = results(ops.masked_mlp, net, given)[1 + index]
    given[index] = given[index].clone().requires_grad_()
    y = call(ops.masked_mlp, net, given)
    assert torch.equal(
        torch.autograd.grad(y, given[index], torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y))[0], expected
    )


def test_a_missing_bias_is_zero(cpu_variant: str) -> None:
    net = NETWORKS["any order"]
    given = case(net, 40, False)
    without = [None if i > 2 and i % 2 else t for i, t in enumerate(given)]
    zeros = [torch.zeros_like(t) if i > 2 and i % 2 else t for i, t in enumerate(given)]
    assert torch.equal(results(ops.masked_mlp, net, without)[0], results(ops.masked_mlp, net, zeros)[0])
    assert torch.equal(without_gradients(net, without), without_gradients(net, zeros))


def test_the_thread_count_does_not_change_a_bit() -> None:
    net = network(range(1, 33), (200, 200))
    given = case(net, 1100, False, torch.float32)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append([*results(ops.masked_mlp, net, given), without_gradients(net, given)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


def test_compile() -> None:
    net = network(ORDER, (20, 20))
    plan = ops.make_network_plan(net)
    given = [t.requires_grad_() for t in case(net, 9, True)]

    def loss(x: Tensor, terms: Tensor, *params: Tensor) -> Tensor:
        return ops.masked_mlp(x, net, params, context_terms=terms, plan=plan).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), loss(*given))
    torch.testing.assert_close(*[torch.autograd.grad(f(*given), given) for f in (compiled, loss)])
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), loss(*given))


def test_opcheck() -> None:
    net = network(ORDER, (9, 9), direct=True)
    x, terms, *params = case(net, 5, True)
    plan = [t for layer in ops.make_network_plan(net) for t in layer]
    spec = (["relu", "relu", "identity"], [-1, -1, -1], True)
    for save in (False, True):
        torch.library.opcheck(torch.ops.fastgen.masked_mlp, (x, params, terms, plan, *spec, 2, save))
    y, saved = torch.ops.fastgen.masked_mlp(x, params, terms, plan, *spec, 2, True)
    for needs in ([True] * 9, [False, False, True] + [False] * 6):
        torch.library.opcheck(torch.ops.fastgen.masked_mlp_backward, (y, x, params, saved, plan, *spec, needs))


def test_autocast_answers_in_its_dtype() -> None:
    net = NETWORKS["plain"]
    given = case(net, 9, True, torch.float32)
    with backends.use("auto"), torch.autocast("cpu", torch.bfloat16):
        y = call(ops.masked_mlp, net, given)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), call(reference.masked_mlp, net, given), rtol=0.05, atol=0.05)  # bfloat16 has 8 bits


def test_nothing_is_kept_without_gradients() -> None:
    net = network(range(1, 9), (1000, 1000))
    given = case(net, 64, False, torch.float32)
    plan = ops.make_network_plan(net)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        y = call(ops.masked_mlp, net, given, plan=plan)
    assert max(e.self_cpu_memory_usage for e in profile.events()) <= max(y.nbytes, 4096)


def layer(into: Sequence[int], out: Sequence[int], **options) -> MaskedLayer:  # type: ignore[no-untyped-def]
    return MaskedLayer(tuple(into), tuple(out), **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaskedNetwork(()), "layers: expected at least one"),
        (lambda: MaskedNetwork((layer([1], [1]), layer([2], [1]))), r"layers\[1\].in_degrees: expected the out_degrees"),
        (lambda: MaskedNetwork((layer([1], [1], residual=0),)), r"layers\[0\].residual: expected an earlier layer's index"),
        (
            lambda: MaskedNetwork((layer([1], [1]), layer([1], [1, 1], residual=0))),
            r"layers\[1\].residual: expected a layer of the same",
        ),
        (lambda: MaskedNetwork((layer([1], [1], activation="relu"),)), r"layers\[-1\].activation: expected identity"),
        (lambda: MaskedNetwork((layer([1], [1], activation="x"),)), "activation: expected one of"),
        (lambda: MaskedNetwork((layer([1], [1, 1, 1]),), outputs=2), "outputs: expected a divisor"),
    ],
)
def test_a_network_that_does_not_fit_together(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.__setitem__(0, torch.zeros(5, 6)), ValueError, r"x: expected shape \(\.\.\., 7\), found \(5, 6\)"),
        (lambda t: t.__setitem__(0, torch.zeros(5, 7).long()), TypeError, "x: expected a floating dtype"),
        (lambda t: t.__setitem__(1, torch.zeros(5, 9).double()), ValueError, r"context_terms: expected shape \(\.\.\., 33\)"),
        (
            lambda t: t.__setitem__(1, torch.zeros(4, 33).double()),
            ValueError,
            r"context_terms: expected a batch that broadcasts to \(5,\)",
        ),
        (lambda t: t.__setitem__(2, None), TypeError, r"params\[0\]: expected a tensor, found NoneType"),
        (lambda t: t.__setitem__(4, torch.zeros(33, 40).double()), ValueError, r"params\[2\]: expected shape \(40, 33\)"),
        (lambda t: t.__setitem__(3, torch.zeros(33)), TypeError, r"params\[1\]: expected x's dtype torch.float64"),
        (lambda t: t.pop(), ValueError, "params: expected 6 tensors, found 5"),
    ],
)
def test_bad_arguments(change, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    given = case(NETWORKS["plain"], 5, True)
    change(given)
    with pytest.raises(error, match=message):
        call(ops.masked_mlp, NETWORKS["plain"], given)


def compiled_arguments() -> dict[str, object]:
    net = network(ORDER, (9, 9), direct=True)
    x, terms, *params = case(net, 5, True)
    plan = [t for part in ops.make_network_plan(net) for t in part]
    return dict(
        x=x, params=params, context_terms=terms, plan=plan, activations=["relu", "relu", "identity"], residuals=[-1, -1, -1],
        direct=True, y=torch.zeros(5, 14).double(), saved=torch.zeros(90).double(),
    )  # fmt: skip


def with_plan(arguments: dict[str, object]) -> dict[str, object]:
    """The arguments of a call, of those of a plan the plan made."""
    parts = {k: arguments[k] for k in ("plan", "activations", "residuals", "direct")}
    return {k: v for k, v in arguments.items() if k not in parts} | {"plan": backends.compiled().NetworkPlan(**parts)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(x=torch.zeros(5, 6).double()), "x: expected shape"),
        (lambda a: a.update(x=torch.zeros(5, 7)), "params.0.: expected float32, found float64"),
        (lambda a: a["params"].pop(), "params: expected 7 entries, found 6"),
        (lambda a: a["params"].__setitem__(2, None), "params.2.: expected a tensor, found None"),
        (lambda a: a["params"].__setitem__(2, torch.zeros(9, 8).double()), "expected"),
        (lambda a: a["params"].__setitem__(1, torch.zeros(8).double()), "bias: expected shape"),
        (lambda a: a["params"].__setitem__(6, torch.zeros(13, 7).double()), "expected"),
        (lambda a: a["plan"].pop(), "plan: expected 16 entries, found 15"),
        (lambda a: a["plan"].__setitem__(2, a["plan"][2] + 7), "prefix: expected values that never fall"),
        (lambda a: a["plan"].__setitem__(4, torch.arange(9, dtype=torch.int32).flip(0)), "plan: expected the same order"),
        (lambda a: a["plan"].__setitem__(12, None), "plan: expected the same order"),
        (lambda a: a.update(activations=["relu", "relu", "tanh"]), "activations: expected identity in the last layer"),
        (lambda a: a.update(activations=["relu", "what", "identity"]), "activation: expected a known name"),
        (lambda a: a.update(activations=[]), "activations: expected at least one layer"),
        (lambda a: a.update(residuals=[-1, 1, -1]), "residuals: expected earlier layers"),
        (lambda a: a.update(residuals=[-1, -1, 1]), "residuals: expected earlier layers of the same width"),
        (lambda a: a.update(residuals=[-1, -1]), "residuals: expected 3 entries"),
        (lambda a: a.update(context_terms=torch.zeros(5, 8).double()), "context_terms: expected shape"),
        (lambda a: a.update(y=torch.zeros(4, 14).double()), "y: expected shape"),
        (lambda a: a.update(saved=torch.zeros(89).double()), "saved: expected shape"),
    ],
)
def test_the_compiled_forward_checks_every_argument(change, message: str) -> None:  # type: ignore[no-untyped-def]
    arguments = compiled_arguments()
    change(arguments)
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().masked_mlp_forward(**with_plan(arguments))


@pytest.mark.parametrize("name", ["grad", "x", "saved", "grad_x", "grad_context", "grad_params"])
def test_the_compiled_backward_checks_every_tensor(name: str) -> None:
    given = compiled_arguments()
    params = given["params"]
    arguments = {k: v for k, v in given.items() if k not in ("context_terms", "y")} | dict(
        grad=torch.zeros(5, 14).double(), grad_x=torch.zeros(5, 7).double(), grad_context=torch.zeros(5, 9).double(),
        grad_params=[torch.zeros_like(p) for p in params],  # type: ignore[attr-defined]
    )  # fmt: skip
    arguments = with_plan(arguments)
    backends.compiled().masked_mlp_backward(**arguments)
    arguments[name] = [torch.zeros(3).double()] * len(params) if name == "grad_params" else torch.zeros(6).double()  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="expected"):
        backends.compiled().masked_mlp_backward(**arguments)
