from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support import SCALE_MAPS, assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import ScaleMap

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_map = pytest.mark.parametrize("scale_map", SCALE_MAPS.values(), ids=SCALE_MAPS.keys())
both_directions = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
SOFT_CLIP = SCALE_MAPS["soft_clip"]


def inputs(rows: int, features: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """x, the two outputs of a network as views of one tensor, and log_det."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    shift, log_scale = normal(rows, features, 2).unbind(-1)
    return [normal(rows, features), shift, log_scale, normal(rows)]


def results(function, tensors: Sequence[Tensor], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """z, log_det and the gradients of all inputs, for gradients of z and log_det that differ from element to element."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    x, shift, log_scale, log_det = leaves
    z, total = function(x, shift, log_scale, log_det=log_det, **options)
    weights = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).view_as(z), torch.linspace(1, 3, total.numel(), dtype=total.dtype)
    grads = torch.autograd.grad((z, total), leaves, (weights[0], weights[1].view_as(total)))
    return [z.detach(), total.detach(), *grads]


@every_map
@both_directions
@pytest.mark.parametrize(("rows", "features"), [(2000, 1), (33, 7), (33, 64), (5, 1100)])
def test_float32_is_as_accurate_as_pytorch(
    cpu_variant: str, scale_map: ScaleMap, inverse: bool, rows: int, features: int
) -> None:
    tensors = inputs(rows, features, torch.float32)
    options = {"scale_map": scale_map, "inverse": inverse}
    truth = results(reference.affine_autoregressive, [t.double() for t in tensors], **options)
    expected = results(reference.affine_autoregressive, tensors, **options)
    for triple in zip(results(ops.affine_autoregressive, tensors, **options), expected, truth, strict=True):
        # One element may cancel to nothing: where rows have one, the batch is the row, and long, or one element rules it.
        assert_as_accurate(*(t.flatten() if features == 1 else t for t in triple))


@every_map
@both_directions
@pytest.mark.parametrize("features", [1, 5, 513])
def test_float64_equals_the_reference(cpu_variant: str, scale_map: ScaleMap, inverse: bool, features: int) -> None:
    tensors = inputs(9, features)
    options = {"scale_map": scale_map, "inverse": inverse}
    expected = results(reference.affine_autoregressive, tensors, **options)
    # A sum of 513 terms in another order.
    torch.testing.assert_close(results(ops.affine_autoregressive, tensors, **options), expected, rtol=1e-13, atol=1e-12)


@every_map
def test_round_trip(scale_map: ScaleMap) -> None:
    x, shift, log_scale, log_det = inputs(17, 6)
    z, forward = ops.affine_autoregressive(x, shift, log_scale, scale_map=scale_map, log_det=log_det)
    back, total = ops.affine_autoregressive(z, shift, log_scale, scale_map=scale_map, inverse=True, log_det=forward)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(total, log_det)


def test_log_det_is_that_of_the_jacobian() -> None:
    x, shift, log_scale, _ = inputs(1, 4)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: ops.affine_autoregressive(x, shift, log_scale, scale_map=SOFT_CLIP)[0].flatten(), x
    ).view(4, 4)
    torch.testing.assert_close(ops.affine_autoregressive(x, shift, log_scale, scale_map=SOFT_CLIP)[1][0], jacobian.slogdet()[1])


# The gradient of clamp_straight is not that of its value, by definition.
@pytest.mark.parametrize("kind", [k for k in SCALE_MAPS if k != "clamp_straight"])
@both_directions
def test_gradcheck(kind: str, inverse: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs(3, 2)]

    def function(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return ops.affine_autoregressive(x, shift, log_scale, inverse=inverse, scale_map=SCALE_MAPS[kind], log_det=log_det)

    torch.autograd.gradcheck(function, tensors)


@both_directions
@pytest.mark.parametrize("kind", ["identity", "softplus", "soft_clip"])
def test_gradgradcheck(kind: str, inverse: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs(2, 2)]

    def function(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return ops.affine_autoregressive(x, shift, log_scale, inverse=inverse, scale_map=SCALE_MAPS[kind], log_det=log_det)

    torch.autograd.gradgradcheck(function, tensors)


def test_double_backward_of_log_det_alone_with_respect_to_x_is_nothing() -> None:
    x, shift, log_scale, _ = inputs(3, 2)
    x.requires_grad_()
    _, log_det = ops.affine_autoregressive(x, shift, log_scale)
    assert torch.autograd.grad(log_det.sum(), x, create_graph=True, allow_unused=True)[0] is None


@every_map
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_scales_are_those_of_the_reference(
    cpu_variant: str, scale_map: ScaleMap, inverse: bool, dtype: torch.dtype
) -> None:
    log_scale = torch.tensor([[a] for a in (-80.0, -40.0, -18.5, -18.0, -1.0, 0.5, 1e-30, 0.0, 18.0, 40.0, 80.0)], dtype=dtype)
    tensors = [torch.full_like(log_scale, 3.0), torch.full_like(log_scale, 1.0), log_scale, torch.zeros(11, dtype=dtype)]
    options = {"scale_map": scale_map, "inverse": inverse}
    truth = results(reference.affine_autoregressive, [t.double() for t in tensors], **options)
    # Under e^80 one unit in the last place of s becomes 80 of z.
    tolerance = 256 * torch.finfo(dtype).eps
    for value, exact in zip(results(ops.affine_autoregressive, tensors, **options), truth, strict=True):
        torch.testing.assert_close(value, exact.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_beyond_the_range_become_infinite_or_zero(cpu_variant: str, dtype: torch.dtype) -> None:
    log_scale = torch.tensor([[-1e4], [1e4]], dtype=dtype)
    z, log_det = ops.affine_autoregressive(torch.ones_like(log_scale), torch.zeros_like(log_scale), log_scale)
    assert z.flatten().tolist() == [torch.inf, 0.0]
    assert log_det.tolist() == [1e4, -1e4]


def test_clamp_passes_gradients_on_its_edges(cpu_variant: str) -> None:
    log_scale = torch.tensor([[-1.1, -1.0, 0.0, 0.5, 0.6]]).requires_grad_()
    x = torch.zeros(1, 5)
    for kind, expected in (("clamp", [0.0, -1.0, -1.0, -1.0, 0.0]), ("clamp_straight", [-1.0] * 5)):
        _, log_det = ops.affine_autoregressive(x, x, log_scale, scale_map=SCALE_MAPS[kind])
        assert torch.autograd.grad(log_det.sum(), log_scale)[0].tolist() == [expected]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["x", "shift", "log_scale"])
@both_directions
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float, where: int, inverse: bool) -> None:
    tensors = inputs(21, 5, torch.float32)
    clean = results(ops.affine_autoregressive, tensors, inverse=inverse)
    tensors[where] = tensors[where].clone()
    tensors[where][4, 2] = bad
    others = torch.arange(21) != 4
    dirty = results(ops.affine_autoregressive, tensors, inverse=inverse)
    for value, expected in zip(dirty, clean, strict=True):
        assert torch.equal(value[others], expected[others])
    touched = dirty[1] if where == 2 else dirty[0][:, 2]
    assert not touched[4].isfinite()


@pytest.mark.parametrize("features", [1, 3, 70])
def test_any_strides(cpu_variant: str, features: int) -> None:
    tensors = [t.contiguous() for t in inputs(19, features, torch.float32)]
    expected = results(ops.affine_autoregressive, tensors, scale_map=SOFT_CLIP)
    for i in range(3):
        for strided in strided_like(tensors[i]):
            given = [strided if j == i else t for j, t in enumerate(tensors)]
            assert all(map(torch.equal, results(ops.affine_autoregressive, given, scale_map=SOFT_CLIP), expected))


def test_expanded_inputs() -> None:
    x, shift, log_scale, log_det = inputs(6, 5)
    expanded = [x[:1].expand(6, 5), shift[:, :1].expand(6, 5), log_scale[:1, :1].expand(6, 5), log_det[:1].expand(6)]
    expected = results(ops.affine_autoregressive, [t.contiguous() for t in expanded])
    assert all(map(torch.equal, results(ops.affine_autoregressive, expanded), expected))


def test_any_strides_of_incoming_gradients(cpu_variant: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(6, 5)]
    z, log_det = ops.affine_autoregressive(*tensors[:3], log_det=tensors[3])
    for grad in (*strided_like(torch.randn(6, 5).double()), torch.ones(()).double().expand(6, 5)):
        for per_row in (torch.ones(()).double().expand(6), torch.randn(12).double()[::2]):
            given = torch.autograd.grad((z, log_det), tensors, (grad, per_row), retain_graph=True)
            expected = torch.autograd.grad((z, log_det), tensors, (grad.contiguous(), per_row.contiguous()), retain_graph=True)
            assert all(map(torch.equal, given, expected))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4), (2, 1, 3, 1)])
def test_leading_dimensions(shape: tuple[int, ...]) -> None:
    tensors = [torch.randn(shape, dtype=torch.float64) for _ in range(3)] + [torch.randn(shape[:-1], dtype=torch.float64)]
    expected = results(reference.affine_autoregressive, tensors)
    given = results(ops.affine_autoregressive, tensors)
    torch.testing.assert_close(given, expected)
    assert given[0].shape == shape and given[1].shape == shape[:-1]


def test_log_det_is_read_and_not_written() -> None:
    x, shift, log_scale, log_det = inputs(4, 3)
    before = log_det.clone()
    _, total = ops.affine_autoregressive(x, shift, log_scale, log_det=log_det)
    assert torch.equal(log_det, before) and total.data_ptr() != log_det.data_ptr()
    torch.testing.assert_close(total, log_det - log_scale.sum(-1))


@pytest.mark.parametrize("wanted", range(4))
@both_directions
def test_one_gradient_alone(wanted: int, inverse: bool) -> None:
    tensors = inputs(5, 3)
    expected = results(ops.affine_autoregressive, tensors, inverse=inverse, scale_map=SOFT_CLIP)[2 + wanted]
    tensors[wanted] = tensors[wanted].clone().requires_grad_()
    z, log_det = ops.affine_autoregressive(*tensors[:3], log_det=tensors[3], inverse=inverse, scale_map=SOFT_CLIP)
    weights = torch.linspace(-1, 2, 15, dtype=z.dtype).view_as(z), torch.linspace(1, 3, 5, dtype=z.dtype)
    outputs = (z, log_det) if wanted < 3 else (log_det,)
    assert torch.equal(torch.autograd.grad(outputs, tensors[wanted], weights[2 - len(outputs) :])[0], expected)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    x, shift, log_scale, log_det = inputs(5, 3)
    grads = torch.ops.fastgen.affine_autoregressive_backward(
        x, log_det, x, shift, log_scale, False, 0, 0.0, 0.0, [False, True, False]
    )
    assert [g.numel() for g in grads] == [0, 15, 0]


@both_directions
def test_a_loss_of_one_output(inverse: bool) -> None:
    tensors = [t.requires_grad_() for t in inputs(5, 3)]
    for i in range(2):
        given = ops.affine_autoregressive(*tensors[:3], inverse=inverse, scale_map=SOFT_CLIP, log_det=tensors[3])[i]
        expected = reference.affine_autoregressive(*tensors[:3], inverse=inverse, scale_map=SOFT_CLIP, log_det=tensors[3])[i]
        pair = [
            torch.autograd.grad(v.square().sum(), tensors, allow_unused=True, materialize_grads=True) for v in (given, expected)
        ]
        torch.testing.assert_close(*pair)


def test_log_det_alone_has_a_finite_gradient_where_z_overflows() -> None:
    x, shift, log_scale, _ = inputs(2, 3)
    log_scale = (log_scale - 1e4).requires_grad_()
    _, log_det = ops.affine_autoregressive(x, shift, log_scale)
    assert torch.autograd.grad(log_det.sum(), log_scale)[0].tolist() == [[-1.0] * 3] * 2


def test_one_tensor_given_twice_gets_both_gradients() -> None:
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a, b: ops.affine_autoregressive(a, b, b), (a, b))
    torch.autograd.gradgradcheck(lambda a, b: ops.affine_autoregressive(a, b, b), (a, b))


def test_the_thread_count_does_not_change_a_bit() -> None:
    tensors = inputs(700, 64, torch.float32)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(results(ops.affine_autoregressive, tensors, scale_map=SOFT_CLIP))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@both_directions
def test_compile(inverse: bool) -> None:
    def loss(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor) -> Tensor:
        z, total = ops.affine_autoregressive(x, shift, log_scale, inverse=inverse, scale_map=SOFT_CLIP, log_det=log_det)
        return (z.square().sum(-1) + total).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    tensors = [t.requires_grad_() for t in inputs(5, 3)]
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    pair = [torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("which", [0, 1], ids=["z", "log_det"])
def test_compile_of_one_output(which: int) -> None:
    def loss(x: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
        return ops.affine_autoregressive(x, shift, log_scale)[which].square().sum()

    tensors = [t.requires_grad_() for t in inputs(5, 3)[:3]]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    pair = [torch.autograd.grad(f(*tensors), tensors, allow_unused=True, materialize_grads=True) for f in (compiled, loss)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    x, shift, log_scale, log_det = inputs(5, 3, dtype)
    torch.library.opcheck(torch.ops.fastgen.affine_autoregressive, (x, shift, log_scale, log_det, True, 5, 6.9, 0.0))
    torch.library.opcheck(torch.ops.fastgen.affine_autoregressive, (x, shift, log_scale, None, False, 0, 0.0, 0.0))
    for needs in ([True, True, True], [True, False, False]):
        arguments = (x, log_det, x, shift, log_scale, False, 0, 0.0, 0.0, needs)
        torch.library.opcheck(torch.ops.fastgen.affine_autoregressive_backward, arguments)


def test_torch_func() -> None:
    x, shift, log_scale, _ = inputs(4, 3)

    def loss(function, log_scale: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        z, log_det = function(x, shift, log_scale)
        return (z.square().sum(-1) + log_det).sum()

    given, expected = (
        torch.func.grad(lambda s, f=f: loss(f, s))(log_scale)
        for f in (ops.affine_autoregressive, reference.affine_autoregressive)
    )
    torch.testing.assert_close(given, expected)


def test_forward_mode_raises() -> None:
    x, shift, log_scale, _ = inputs(4, 3)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(lambda x: ops.affine_autoregressive(x, shift, log_scale)[0], (x,), (torch.ones_like(x),))


def test_autocast_computes_in_float32() -> None:
    x, shift, log_scale, _ = inputs(5, 3, torch.float32)
    halves = [shift.bfloat16().requires_grad_(), log_scale.bfloat16().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = ops.affine_autoregressive(x, *halves)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close((z, log_det), reference.affine_autoregressive(x, *(t.float() for t in halves)))
    assert [g.dtype for g in torch.autograd.grad(z.sum() + log_det.sum(), halves)] == [torch.bfloat16] * 2


def test_autocast_does_not_take_integers() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="found torch"):
        ops.affine_autoregressive(X.long(), X, X)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_run_on_the_reference(dtype: torch.dtype) -> None:
    x, shift, log_scale, _ = inputs(5, 3, dtype)
    with backends.use("auto"):
        z, log_det = ops.affine_autoregressive(x, shift, log_scale)
    assert z.dtype == dtype and log_det.dtype == torch.float32
    assert torch.equal(z, reference.affine_autoregressive(x, shift, log_scale)[0])


def test_forced_backends() -> None:
    x, shift, log_scale, _ = inputs(5, 3, torch.float32)
    with backends.use("reference"):
        given = ops.affine_autoregressive(x, shift, log_scale)
    assert all(map(torch.equal, given, reference.affine_autoregressive(x, shift, log_scale)))
    with pytest.raises(backends.BackendError, match="bfloat16"):
        ops.affine_autoregressive(x.bfloat16(), shift.bfloat16(), log_scale.bfloat16())


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.long()}, TypeError, "x: expected a floating dtype, found torch.int64"),
        ({"x": torch.zeros(4, 0)}, ValueError, r"x: expected shape \(\.\.\., at least 1\), found \(4, 0\)"),
        ({"x": torch.zeros(())}, ValueError, "x: expected shape"),
        ({"shift": torch.zeros(4, 2)}, ValueError, r"shift: expected shape \(4, 3\), found \(4, 2\)"),
        ({"shift": X.double()}, TypeError, "shift: expected x's dtype torch.float32, found torch.float64"),
        ({"log_scale": torch.zeros(3)}, ValueError, r"log_scale: expected shape \(4, 3\), found \(3,\)"),
        ({"log_scale": X.to("meta")}, ValueError, "log_scale: expected x's device cpu, found meta"),
        ({"log_det": torch.zeros(3)}, ValueError, r"log_det: expected shape \(4,\), found \(3,\)"),
        ({"log_det": torch.zeros(4).double()}, TypeError, "log_det: expected dtype torch.float32"),
        ({"log_det": 0.0}, TypeError, "log_det: expected a tensor, found float"),
    ],
)
def test_bad_arguments(arguments: dict[str, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.affine_autoregressive(**{"x": X, "shift": X, "log_scale": X, **arguments})


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(4, 3, 1), "x: "),
        (0, torch.zeros(4, 0), "x: "),
        (0, X.half(), "x: "),
        (1, torch.zeros(4, 2), "shift: "),
        (1, X.double(), "shift: "),
        (2, torch.zeros(5, 3), "log_scale: "),
        (3, torch.zeros(5), "log_det_in: "),
        (5, 7, "kind: "),
        (5, -1, "kind: "),
        (8, torch.zeros(3, 3), "z: "),
        (8, torch.zeros(3, 4).t(), "z: .*contiguous"),
        (9, torch.zeros(4).double(), "log_det: "),
    ],
)
def test_the_compiled_forward_checks_every_argument(position: int, wrong: object, message: str) -> None:
    arguments = [X, X, X, torch.zeros(4), False, 0, 0.0, 0.0, torch.zeros(4, 3), torch.zeros(4)]
    arguments[position] = wrong
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().affine_autoregressive_forward(*arguments)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 9, 10, 11])
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    room = [torch.zeros(4, 3) for _ in range(3)]
    arguments = [X, torch.zeros(4), X, X, X, False, 0, 0.0, 0.0, *room]
    arguments[position] = torch.zeros(5)
    with pytest.raises((ValueError, TypeError), match="expected"):
        backends.compiled().affine_autoregressive_backward(*arguments)
