"""What planar and radial layers and their inverses share."""

from __future__ import annotations

import pytest
import torch
from layers import OPERATIONS, inputs, pair, results
from support import assert_draws_as_accurate, strided_like
from torch import Tensor

from fastgen import backends

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_operation = pytest.mark.parametrize("name", OPERATIONS)
both_kinds = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_row"])


@every_operation
@both_kinds
@pytest.mark.parametrize(("rows", "features", "layers"), [(1000, 1, 4), (500, 2, 8), (200, 64, 16), (150, 37, 5)])
def test_float32_is_as_accurate_as_pytorch(
    cpu_variant: str, name: str, shared: bool, rows: int, features: int, layers: int
) -> None:
    operation, definition = pair(name)
    draws = []
    for seed in range(5 if features < 3 else 1):
        tensors = inputs(name, (rows,), features, layers, shared=shared, dtype=torch.float32, seed=seed)
        truth = results(definition, [t.double() for t in tensors])
        # Few numbers may be exact by chance: the parameters' gradients are compared as one vector, each in units of its norm.
        triple = (
            [*r[:3], torch.cat([(g / t.norm().to(g)).flatten() for g, t in zip(r[3:], truth[3:], strict=True)])]
            for r in (results(operation, tensors), results(definition, tensors), truth)
        )
        draws.append([tuple(t.flatten() for t in of_one) for of_one in zip(*triple, strict=True)])
    for of_one in zip(*draws, strict=True):
        assert_draws_as_accurate(*of_one)


@every_operation
@both_kinds
@pytest.mark.parametrize(("rows", "features", "layers"), [(1, 1, 1), (49, 3, 2), (97, 16, 20), (3, 4096, 2)])
def test_float64_equals_the_reference(cpu_variant: str, name: str, shared: bool, rows: int, features: int, layers: int) -> None:
    tensors = inputs(name, (rows,), features, layers, shared=shared)
    operation, definition = pair(name)
    # Sums of up to 4096 terms in another order.
    for given, expected in zip(results(operation, tensors), results(definition, tensors), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-11, atol=1e-11 * max(1.0, float(expected.abs().max())))


@every_operation
@both_kinds
def test_log_det_is_that_of_the_jacobian(name: str, shared: bool) -> None:
    z, *parameters = inputs(name, (5,), 4, 3, shared=shared)
    operation, _ = pair(name)
    _, log_det = operation(z, *parameters)
    for i in range(5):
        own = parameters if shared else [p[i] for p in parameters]
        jacobian = torch.autograd.functional.jacobian(lambda x, own=own: operation(x, *own)[0], z[i])
        torch.testing.assert_close(log_det[i], jacobian.slogdet()[1])


@pytest.mark.parametrize("name", ["planar", "radial"])
@both_kinds
def test_round_trip(cpu_variant: str, name: str, shared: bool) -> None:
    z, *parameters = inputs(name, (60,), 6, 8, shared=shared)
    y, forward = pair(name)[0](z, *parameters)
    back, inverse = pair(f"{name}_inverse")[0](y, *parameters)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(inverse, -forward)


@every_operation
@both_kinds
def test_gradcheck(name: str, shared: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs(name, (3,), 2, 2, shared=shared)]
    torch.autograd.gradcheck(pair(name)[0], tensors)
    torch.autograd.gradgradcheck(pair(name)[0], tensors)


@every_operation
@both_kinds
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4), (2, 1, 3, 1)])
def test_leading_dimensions(name: str, shared: bool, shape: tuple[int, ...]) -> None:
    tensors = inputs(name, shape[:-1], shape[-1], 2, shared=shared)
    given, expected = (results(f, tensors) for f in pair(name))
    torch.testing.assert_close(given, expected)
    assert given[0].shape == shape and given[1].shape == shape[:-1]


@every_operation
@both_kinds
@pytest.mark.parametrize("features", [1, 3, 64])
def test_any_strides(cpu_variant: str, name: str, shared: bool, features: int) -> None:
    z, *parameters = inputs(name, (50,), features, 3, shared=shared, dtype=torch.float32)
    operation, _ = pair(name)
    expected = results(operation, [z, *parameters])
    for strided in strided_like(z):
        assert all(map(torch.equal, results(operation, [strided, *parameters]), expected))
    apart = [torch.stack((p, p), -1)[..., 1] for p in parameters]
    turned = [p.transpose(0, 1).contiguous().transpose(0, 1) if p.dim() > 1 else p for p in parameters]
    for other in (apart, turned):
        assert all(map(torch.equal, results(operation, [z, *other]), expected))


@every_operation
def test_parameters_expanded_over_rows_are_those_of_each_row(name: str) -> None:
    z, *parameters = inputs(name, (20,), 5, 3)
    leaves = [p.requires_grad_() for p in parameters]
    operation, _ = pair(name)
    expanded = operation(z, *(p.expand(20, *p.shape) for p in leaves))
    shared = operation(z, *leaves)
    torch.testing.assert_close(expanded, shared)
    grads = [torch.autograd.grad(o[0].square().sum() + o[1].sum(), leaves) for o in (expanded, shared)]
    torch.testing.assert_close(*grads)


@every_operation
@both_kinds
def test_any_strides_of_incoming_gradients(cpu_variant: str, name: str, shared: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs(name, (50,), 5, 3, shared=shared)]
    outputs = pair(name)[0](*tensors)
    for grad in (*strided_like(torch.randn(50, 5).double()), torch.ones(()).double().expand(50, 5)):
        for per_row in (torch.ones(()).double().expand(50), torch.randn(100).double()[::2]):
            given = torch.autograd.grad(outputs, tensors, (grad, per_row), retain_graph=True)
            expected = torch.autograd.grad(outputs, tensors, (grad.contiguous(), per_row.contiguous()), retain_graph=True)
            assert all(map(torch.equal, given, expected))


@every_operation
@both_kinds
def test_one_gradient_alone_and_a_loss_of_one_output(name: str, shared: bool) -> None:
    tensors = inputs(name, (50,), 3, 4, shared=shared)
    operation, definition = pair(name)
    for wanted in range(4):
        given = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
        for output in range(2):
            grads = [torch.autograd.grad(f(*given)[output].square().sum(), given[wanted])[0] for f in (operation, definition)]
            torch.testing.assert_close(*grads)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    z, u, w, b = inputs("planar", (5,), 3, 2)
    _, log_det, saved = torch.ops.fastgen.planar(z, u, w, b, True, False, True)
    grads = torch.ops.fastgen.planar_backward(z, log_det, z, u, w, b, saved, True, False, [False, True, False, False])
    assert [g.numel() for g in grads] == [0, 6, 0, 0]
    assert torch.ops.fastgen.planar(z, u, w, b, True, False, False)[2].numel() == 0


@every_operation
@both_kinds
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, name: str, shared: bool, bad: float) -> None:
    z, *parameters = inputs(name, (60,), 5, 3, shared=shared, dtype=torch.float32)
    operation, _ = pair(name)
    clean = operation(z, *parameters)
    z[4, 2] = bad
    dirty = operation(z, *parameters)
    others = torch.arange(60) != 4
    assert all(torch.equal(d[others], c[others]) for d, c in zip(dirty, clean, strict=True))
    assert not dirty[0][4].isfinite().all()
    if not shared:
        grads = results(operation, [z, *parameters])
        assert all(g[others].isfinite().all() for g in grads)


@every_operation
@both_kinds
def test_the_thread_count_does_not_change_results(name: str, shared: bool) -> None:
    tensors = inputs(name, (3000,), 32, 4, shared=shared, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            runs.append(results(pair(name)[0], tensors))
    finally:
        torch.set_num_threads(before)
    # Sums over all rows are made thread by thread.
    same = slice(3) if shared else slice(None)
    assert all(map(torch.equal, runs[0][same], runs[1][same])) and all(map(torch.equal, runs[1], runs[2]))


@every_operation
def test_compile(name: str) -> None:
    operation, _ = pair(name)

    def loss(*tensors: Tensor) -> Tensor:
        out, log_det = operation(*tensors)
        return (out.square().sum(-1) + log_det).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for shared in (True, False):
        tensors = [t.requires_grad_() for t in inputs(name, (5,), 3, 2, shared=shared)]
        torch.testing.assert_close(compiled(*tensors), loss(*tensors))
        torch.testing.assert_close(*(torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)))


@every_operation
def test_opcheck(name: str) -> None:
    kind, inverse = name.split("_")[0], name.endswith("inverse")
    for shared in (True, False):
        tensors = inputs(name, (5,), 3, 2, shared=shared, dtype=torch.float32)
        options = (True, inverse, True) if kind == "planar" else (inverse,)
        out, log_det, *saved = getattr(torch.ops.fastgen, kind)(*tensors, *options)
        torch.library.opcheck(getattr(torch.ops.fastgen, kind), (*tensors, *options))
        for needs in ([True] * 4, [True, False, False, False]):
            arguments = (out, log_det, *tensors, *saved, *options[: 2 if kind == "planar" else 1], needs)
            torch.library.opcheck(getattr(torch.ops.fastgen, f"{kind}_backward"), arguments)


@every_operation
def test_torch_func(name: str) -> None:
    z, *parameters = inputs(name, (4,), 3, 2)

    def loss(function, p: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        out, log_det = function(z, p, *parameters[1:])
        return (out.square().sum(-1) + log_det).sum()

    torch.testing.assert_close(*(torch.func.grad(lambda p, f=f: loss(f, p))(parameters[0]) for f in pair(name)))


@every_operation
def test_halves_run_on_the_reference_and_autocast_computes_in_float32(name: str) -> None:
    operation, definition = pair(name)
    halves = [t.bfloat16() for t in inputs(name, (5,), 3, 2)]
    with backends.use("auto"):
        out, log_det = operation(*halves)
    assert (out.dtype, log_det.dtype) == (torch.bfloat16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out, log_det = operation(*halves)
    assert out.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close((out, log_det), definition(*(t.float() for t in halves)))


@every_operation
def test_errors_name_the_argument(name: str) -> None:
    operation, _ = pair(name)
    z, vector, second, number = inputs(name, (5,), 3, 2)
    subject = "y" if name.endswith("inverse") else "z"
    first, last = ("u", "b") if name.startswith("planar") else ("centre", "raw_beta")
    with pytest.raises(TypeError, match=f"{subject}: expected a floating dtype"):
        operation(z.long(), vector, second, number)
    with pytest.raises(ValueError, match=f"{subject}: expected shape"):
        operation(z[:, :0], vector, second, number)
    with pytest.raises(TypeError, match=f"{first}: expected {subject}'s dtype"):
        operation(z, vector.float(), second, number)
    with pytest.raises(ValueError, match=rf"{first}: expected shape \(2, 3\) or \(5, 2, 3\), found \(4, 2, 3\)"):
        operation(z, vector.expand(4, 2, 3), second, number)
    with pytest.raises(ValueError, match=rf"{first}: expected shape \(K, 3\) or \(5, K, 3\), found \(0, 3\)"):
        operation(z, vector[:0], second, number)
    with pytest.raises(ValueError, match=rf"{last}: expected shape \(2,\), found \(1,\)"):
        operation(z, vector, second, number[:1])
    with pytest.raises(TypeError, match=f"{last}: expected a tensor"):
        operation(z, vector, second, 1.0)


def test_the_boundary_checks_every_size() -> None:
    compiled = backends.compiled()
    z, u, w, b = inputs("planar", (5,), 3, 2)
    out, log_det, saved = torch.empty_like(z), z.new_empty(5), z.new_empty(2, 5)
    compiled.planar_forward(z, u, w, b, True, False, out, log_det, saved)
    for bad, name in (
        ((z, u[:, :2], w, b, True, False, out, log_det, saved), "u"),
        ((z, u, w[:1], b, True, False, out, log_det, saved), "w"),
        ((z, u, w, b[:1], True, False, out, log_det, saved), "b"),
        ((z, u, w.t().contiguous().t(), b, True, False, out, log_det, saved), "w"),
        ((z, u, w, b, True, False, out[:4], log_det, saved), "out"),
        ((z, u, w, b, True, False, out, log_det[:4], saved), "log_det"),
        ((z, u, w, b, True, False, out, log_det, saved.t()), "saved"),
    ):
        with pytest.raises(ValueError, match=f"{name}: "):
            compiled.planar_forward(*bad)
    z, centre, log_alpha, raw_beta = inputs("radial", (5,), 3, 2)
    with pytest.raises(ValueError, match="log_alpha: "):
        compiled.radial_forward(z, centre, log_alpha[:1], raw_beta, False, out, log_det)
