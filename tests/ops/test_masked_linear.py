from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_activation = pytest.mark.parametrize("activation", reference.ACTIVATIONS)
strictness = pytest.mark.parametrize("strict", [False, True], ids=["<=", "<"])


def degrees(kind: str, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Degree vectors: sorted, in no order, all tied, of a MADE's last layer, and where outputs or inputs see nothing."""
    generator = torch.Generator().manual_seed(inputs * 1000 + outputs)

    def draw(low: int, high: int, n: int) -> Tensor:
        return torch.randint(low, high, (n,), generator=generator)

    if kind == "sorted":
        return draw(0, 9, inputs).sort().values, draw(0, 9, outputs).sort().values
    if kind == "tied":
        return torch.full((inputs,), 3), torch.full((outputs,), 3)
    if kind == "reversed":
        return torch.arange(inputs, 0, -1), torch.arange(outputs, 0, -1)
    if kind == "apart":
        return draw(5, 9, inputs), draw(0, 7, outputs)
    return draw(0, 9, inputs), draw(0, 9, outputs)


def tensors(rows: int, inputs: int, outputs: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows + inputs)
    shapes = [(rows, inputs), (outputs, inputs), (outputs,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def results(function, given: list[Tensor], *degrees: Tensor, **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """y and the gradients of x, weight and bias for a gradient that differs from element to element."""
    leaves = [t.detach().requires_grad_() for t in given]
    y = function(*leaves, *degrees, **options)
    grad = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


SIZES = [(1, 1, 1), (5, 1, 7), (33, 7, 1), (13, 31, 33), (29, 64, 130), (70, 100, 65)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["sorted", "unsorted", "tied", "reversed", "apart"])
@strictness
def test_float64_equals_the_reference(cpu_variant: str, size: tuple[int, int, int], kind: str, strict: bool) -> None:
    given, pair = tensors(*size), degrees(kind, *size[1:])
    expected = results(reference.masked_linear, given, *pair, strict=strict, activation="tanh")
    # Sums of at most 130 terms in another order.
    torch.testing.assert_close(
        results(ops.masked_linear, given, *pair, strict=strict, activation="tanh"), expected, rtol=1e-12, atol=1e-12
    )


@every_activation
@pytest.mark.parametrize("size", [(40, 33, 70), (300, 64, 512), (256, 700, 40)], ids=str)
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, activation: str, size: tuple[int, int, int]) -> None:
    given, pair = tensors(*size, torch.float32), degrees("sorted", *size[1:])
    given[1] /= size[1] ** 0.5
    truth = results(reference.masked_linear, [t.double() for t in given], *pair, activation=activation)
    expected = results(reference.masked_linear, given, *pair, activation=activation)
    for triple in zip(results(ops.masked_linear, given, *pair, activation=activation), expected, truth, strict=True):
        # Against the norm of the whole: a row may hold one output that sees one input.
        assert_as_accurate(*(t.flatten() for t in triple))


def test_many_rows_are_summed_as_accurately_as_pytorch_does(cpu_variant: str) -> None:
    given, pair = tensors(20_000, 9, 17, torch.float32), degrees("sorted", 9, 17)
    given[0] += 1.0  # sums that grow, where a running sum would lose digits
    truth = results(reference.masked_linear, [t.double() for t in given], *pair)
    expected = results(reference.masked_linear, given, *pair)
    for triple in zip(results(ops.masked_linear, given, *pair), expected, truth, strict=True):
        assert_as_accurate(*(t.flatten() for t in triple))


@every_activation
@strictness
def test_gradcheck(activation: str, strict: bool) -> None:
    given, pair = [t.requires_grad_() for t in tensors(3, 4, 5)], degrees("unsorted", 4, 5)
    torch.autograd.gradcheck(lambda *t: ops.masked_linear(*t, *pair, strict=strict, activation=activation), given)


@pytest.mark.parametrize("activation", ["identity", "tanh", "softplus"])
def test_gradgradcheck(activation: str) -> None:
    given, pair = [t.requires_grad_() for t in tensors(2, 3, 4)], degrees("unsorted", 3, 4)
    torch.autograd.gradgradcheck(lambda *t: ops.masked_linear(*t, *pair, activation=activation), given)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu"])
def test_kinks_differentiate_as_pytorch_does(cpu_variant: str, activation: str) -> None:
    given = [torch.tensor([[-1.0], [-0.0], [0.0], [1.0]]), torch.ones(1, 1), torch.zeros(1)]
    one = torch.ones(1, dtype=torch.int64)
    expected = results(reference.masked_linear, given, one, one, activation=activation)
    torch.testing.assert_close(results(ops.masked_linear, given, one, one, activation=activation), expected, rtol=0, atol=0)


@strictness
def test_weights_outside_the_mask_are_not_read_and_get_no_gradient(cpu_variant: str, strict: bool) -> None:
    given, pair = tensors(21, 40, 50, torch.float32), degrees("unsorted", 40, 50)
    expected = results(ops.masked_linear, given, *pair, strict=strict)
    outside = ~reference.degree_mask(*pair, strict)
    for bad in (torch.nan, torch.inf):
        given[1] = torch.where(outside, bad, given[1])
        assert all(map(torch.equal, results(ops.masked_linear, given, *pair, strict=strict), expected))
    assert not expected[2][outside].any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float) -> None:
    given, pair = tensors(30, 40, 50, torch.float32), degrees("sorted", 40, 50)
    clean = ops.masked_linear(*given, *pair, activation="relu")
    given[0][7, 0] = bad
    dirty = ops.masked_linear(*given, *pair)
    others = torch.arange(30) != 7
    sees = reference.degree_mask(*pair)[:, 0]
    assert sees.any() and not dirty[7, sees].isfinite().any()
    assert torch.equal(dirty[others].relu(), clean[others])
    assert results(ops.masked_linear, given, *pair)[2][:, 0][sees].isfinite().logical_not().all()


def test_relu_passes_a_nan(cpu_variant: str) -> None:
    one = torch.ones(1, dtype=torch.int64)
    assert ops.masked_linear(torch.tensor([[torch.nan]]), torch.ones(1, 1), None, one, one, activation="relu").isnan().all()


def test_any_strides(cpu_variant: str) -> None:
    given, pair = tensors(19, 37, 41, torch.float32), degrees("sorted", 37, 41)
    expected = results(ops.masked_linear, given, *pair)
    for i in range(2):
        for strided in strided_like(given[i]):
            assert all(
                map(
                    torch.equal,
                    results(ops.masked_linear, [strided if j == i else t for j, t in enumerate(given)], *pair),
                    expected,
                )
            )
    rows = given[0][:1].expand(19, 37)
    torch.testing.assert_close(ops.masked_linear(rows, *given[1:], *pair), expected[0][:1].expand(19, 41))


def test_any_strides_of_incoming_gradients(cpu_variant: str) -> None:
    given, pair = [t.requires_grad_() for t in tensors(19, 7, 41)], degrees("unsorted", 7, 41)
    y = ops.masked_linear(*given, *pair, activation="tanh")
    for grad in (*strided_like(torch.randn(19, 41).double()), torch.ones(()).double().expand(19, 41)):
        pairs = [torch.autograd.grad(y, given, g, retain_graph=True) for g in (grad, grad.contiguous())]
        assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize("lead", [(0,), (2, 0), (), (2, 3), (2, 1, 3)], ids=str)
def test_leading_dimensions(lead: tuple[int, ...]) -> None:
    given, pair = tensors(1, 5, 6), degrees("sorted", 5, 6)
    given[0] = torch.randn(*lead, 5, dtype=torch.float64)
    outcome = results(ops.masked_linear, given, *pair, activation="relu")
    torch.testing.assert_close(outcome, results(reference.masked_linear, given, *pair, activation="relu"))
    assert outcome[0].shape == (*lead, 6)


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone(wanted: int) -> None:
    given, pair = tensors(9, 5, 6), degrees("unsorted", 5, 6)
    expected = results(ops.masked_linear, given, *pair)[1 + wanted]
    given[wanted] = given[wanted].clone().requires_grad_()
    y = ops.masked_linear(*given, *pair)
    assert torch.equal(torch.autograd.grad(y, given[wanted], torch.linspace(-1, 2, 54, dtype=y.dtype).view_as(y))[0], expected)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    given, pair = tensors(9, 5, 6), degrees("sorted", 5, 6)
    plan = list(ops.make_plan(*pair))
    grads = torch.ops.fastgen.masked_linear_backward(
        torch.ones(9, 6).double(), *given[:2], torch.ones(9, 6).double(), plan, "identity", [False, True, False]
    )
    assert [g.numel() for g in grads] == [0, 30, 0]


def test_a_cached_plan_gives_the_same() -> None:
    given, pair = tensors(9, 5, 6), degrees("unsorted", 5, 6)
    assert torch.equal(ops.masked_linear(*given, *pair, plan=ops.make_plan(*pair)), ops.masked_linear(*given, *pair))


def test_the_thread_count_does_not_change_a_bit() -> None:
    given, pair = tensors(1500, 200, 300, torch.float32), degrees("sorted", 200, 300)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert backends.compiled().num_threads() == threads
            runs.append(results(ops.masked_linear, given, *pair, activation="elu"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(activation: str, backend: str) -> None:
    pair = degrees("unsorted", 5, 6)
    plan = ops.make_plan(*pair)

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.masked_linear(x, weight, bias, *pair, activation=activation, plan=plan).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    given = [t.requires_grad_() for t in tensors(9, 5, 6)]
    torch.testing.assert_close(compiled(*given), loss(*given))
    torch.testing.assert_close(*[torch.autograd.grad(f(*given), given) for f in (compiled, loss)])


def test_opcheck() -> None:
    given, pair = tensors(9, 5, 6), degrees("unsorted", 5, 6)
    plan = list(ops.make_plan(*pair))
    torch.library.opcheck(torch.ops.fastgen.masked_linear, (*given, plan, "relu"))
    torch.library.opcheck(torch.ops.fastgen.masked_linear, (*given[:2], None, plan, "identity"))
    y = torch.ones(9, 6, dtype=torch.float64)
    for needs in ([True, True, True], [False, True, False]):
        torch.library.opcheck(torch.ops.fastgen.masked_linear_backward, (y, *given[:2], y, plan, "relu", needs))


def test_torch_func() -> None:
    given, pair = tensors(9, 5, 6), degrees("sorted", 5, 6)
    grads = [
        torch.func.grad(lambda w, f=f: f(given[0], w, given[2], *pair, activation="tanh").sum())(given[1])
        for f in (ops.masked_linear, reference.masked_linear)
    ]
    torch.testing.assert_close(*grads)


def test_autocast_answers_in_its_dtype() -> None:
    given, pair = tensors(9, 5, 6, torch.float32), degrees("sorted", 5, 6)
    with backends.use("auto"), torch.autocast("cpu", torch.bfloat16):
        y = ops.masked_linear(*given, *pair)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), reference.masked_linear(*given, *pair), rtol=0.03, atol=0.03)  # bfloat16 has 8 bits


def test_half_types_run_on_the_reference() -> None:
    given, pair = tensors(9, 5, 6, torch.bfloat16), degrees("sorted", 5, 6)
    with backends.use("auto"):
        assert torch.equal(ops.masked_linear(*given, *pair), reference.masked_linear(*given, *pair))
    with pytest.raises(backends.BackendError, match="bfloat16"):
        ops.masked_linear(*given, *pair)


def test_a_call_allocates_nothing_of_the_weights_size() -> None:
    given, pair = tensors(2, 1000, 1000, torch.float32), degrees("sorted", 1000, 1000)
    plan = ops.make_plan(*pair)
    leaves = [given[0].requires_grad_(), given[1], given[2]]
    with torch.profiler.profile(profile_memory=True) as profile:
        ops.masked_linear(*leaves, *pair, plan=plan).sum().backward()
    largest = max(e.self_cpu_memory_usage for e in profile.events())
    assert 0 < largest < given[1].nbytes / 10


X, W, B = torch.zeros(4, 3), torch.zeros(5, 3), torch.zeros(5)
IN, OUT = torch.tensor([1, 2, 3]), torch.tensor([1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.long()}, TypeError, "x: expected a floating dtype, found torch.int64"),
        ({"x": torch.zeros(4, 0)}, ValueError, r"x: expected shape \(\.\.\., at least 1\), found \(4, 0\)"),
        ({"x": torch.zeros(4, 2)}, ValueError, r"weight: expected shape \(out, 2\)"),
        ({"weight": W.double()}, TypeError, "weight: expected x's dtype torch.float32, found torch.float64"),
        ({"weight": W.to("meta")}, ValueError, "weight: expected x's device cpu, found meta"),
        ({"weight": torch.zeros(0, 3)}, ValueError, "weight: expected shape"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias: expected shape \(5,\), found \(4,\)"),
        ({"in_degrees": IN[:2]}, ValueError, r"in_degrees: expected a vector of 3 degrees, found shape \(2,\)"),
        ({"out_degrees": OUT[None]}, ValueError, "out_degrees: expected a vector of 5 degrees"),
        ({"out_degrees": OUT.float()}, TypeError, "out_degrees: expected an int64 tensor, found torch.float32"),
        ({"in_degrees": IN - 2}, ValueError, r"in_degrees: expected degrees in \[0, 2\^31\), found -1 to 1"),
        ({"in_degrees": [1, 2, 3]}, TypeError, "in_degrees: expected an int64 tensor, found list"),
        ({"activation": "swish"}, ValueError, "activation: expected one of identity, relu.*found 'swish'"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.masked_linear(**{"x": X, "weight": W, "bias": B, "in_degrees": IN, "out_degrees": OUT, **arguments})


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


PLAN = [None, None, int32(1, 1, 2, 2, 3), int32(0, 2, 4)]


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(4, 2), "x: expected shape"),
        (0, torch.zeros(3), "x: expected a matrix"),
        (0, torch.zeros(3, 4).t(), "x: expected stride 1"),
        (0, X.half(), "x: expected a float32 or float64"),
        (1, torch.zeros(3, 5).t(), "weight: expected a contiguous"),
        (1, W.double(), "weight: expected float32, found float64"),
        (2, torch.zeros(3), "bias: expected shape"),
        (3, int32(0, 1), "in_order: expected shape"),
        (3, int32(0, 1, 1), "in_order: expected a permutation"),
        (4, int32(0, 1, 2, 3, 5), "out_order: expected a permutation"),
        (5, int32(1, 1, 2, 2, 4), "prefix: expected values that never fall, from 0 to 3"),
        (5, int32(2, 1, 2, 2, 3), "prefix: expected values that never fall"),
        (5, int32(-1, 1, 2, 2, 3), "prefix: expected values that never fall"),
        (5, torch.tensor([1, 1, 2, 2, 3]), "prefix: expected int32, found int64"),
        (6, int32(0, 2), "suffix: expected shape"),
        (6, int32(0, 2, 6), "suffix: expected values that never fall, from 0 to 5"),
        (7, "silu", "activation: expected one that derives from its output"),
        (7, "none", "activation: expected a known name"),
        (8, torch.zeros(4, 4), "y: expected shape"),
        (8, torch.zeros(4, 5, device="meta"), "expected a torch.Tensor with storage"),
        (8, "y", "expected a strided torch.Tensor"),
    ],
)
def test_the_compiled_forward_checks_every_argument(position: int, wrong: object, message: str) -> None:
    arguments = [X, W, B, *PLAN, "identity", torch.zeros(4, 5)]
    arguments[position] = wrong
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().masked_linear_forward(*arguments)


class Subclass(Tensor):
    pass


def test_the_compiled_module_reads_tensors_of_every_kind_alike() -> None:
    x, weight, bias, expected = torch.rand(4, 3), torch.rand(5, 3), torch.rand(5), torch.zeros(4, 5)
    backends.compiled().masked_linear_forward(x, weight, bias, *PLAN, "relu", expected)
    # Rows at a stride, parameters, and subclasses: these are read through their attributes.
    apart = torch.zeros(8, 3)[::2].copy_(x)
    for kind in (torch.nn.Parameter, lambda t: t.as_subclass(Subclass)):
        found = torch.zeros(4, 5)
        backends.compiled().masked_linear_forward(kind(apart), kind(weight), kind(bias), *PLAN, "relu", found)
        assert torch.equal(found, expected)
    assert expected.all()


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    arguments = [
        torch.zeros(4, 5),
        X,
        W,
        torch.zeros(4, 5),
        *PLAN,
        "identity",
        torch.zeros(4, 3),
        torch.zeros(5, 3),
        torch.zeros(5),
    ]
    arguments[position] = torch.zeros(6)
    with pytest.raises((ValueError, TypeError), match="expected"):
        backends.compiled().masked_linear_backward(*arguments)


def test_a_plan_is_the_mask() -> None:
    for kind in ("sorted", "unsorted", "tied", "reversed", "apart"):
        for strict in (False, True):
            pair = degrees(kind, 23, 31)
            plan = ops.make_plan(*pair, strict=strict)
            rows = torch.arange(31) if plan.out_order is None else plan.out_order.long()
            columns = torch.arange(23) if plan.in_order is None else plan.in_order.long()
            mask = reference.degree_mask(*pair, strict)[rows][:, columns]
            assert torch.equal(mask, torch.arange(23) < plan.prefix[:, None])
            assert torch.equal(mask, torch.arange(31)[:, None] >= plan.suffix)


def test_made_equals_dense_where_everything_is_seen() -> None:
    given = tensors(9, 5, 6)
    zeros = torch.zeros(5, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(ops.masked_linear(*given, *zeros), F.linear(*given))
