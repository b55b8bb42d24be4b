from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from support import SCALE_MAPS, assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import ScaleMap

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_map = pytest.mark.parametrize("scale_map", SCALE_MAPS.values(), ids=SCALE_MAPS.keys())
SOFT_CLIP = SCALE_MAPS["soft_clip"]


def inputs(rows: int, features: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """x, and mean and log_scale as views of one tensor."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_scale = torch.randn(rows, features, 2, generator=generator, dtype=torch.float64).to(dtype).unbind(-1)
    return [torch.randn(rows, features, generator=generator, dtype=torch.float64).to(dtype), mean, log_scale]


def results(function, tensors: Sequence[Tensor | None], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The log-density and the gradients of all inputs, for gradients that differ from row to row."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    log_prob = function(*leaves, **options)
    weights = torch.linspace(-1, 2, log_prob.numel(), dtype=log_prob.dtype).view_as(log_prob)
    return [log_prob.detach(), *torch.autograd.grad(log_prob, [t for t in leaves if t is not None], weights)]


@every_map
@pytest.mark.parametrize(("rows", "features"), [(2000, 1), (33, 7), (33, 64), (5, 1100)])
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, scale_map: ScaleMap, rows: int, features: int) -> None:
    tensors = inputs(rows, features, torch.float32)
    truth = results(reference.gaussian_log_prob, [t.double() for t in tensors], scale_map=scale_map)
    expected = results(reference.gaussian_log_prob, tensors, scale_map=scale_map)
    for triple in zip(results(ops.gaussian_log_prob, tensors, scale_map=scale_map), expected, truth, strict=True):
        # One element may cancel to nothing: where rows have one, the batch is the row, and long, or one element rules it.
        assert_as_accurate(*(t.flatten() if features == 1 else t for t in triple))


@every_map
@pytest.mark.parametrize("features", [1, 5, 513])
def test_float64_equals_the_reference(cpu_variant: str, scale_map: ScaleMap, features: int) -> None:
    tensors = inputs(9, features)
    expected = results(reference.gaussian_log_prob, tensors, scale_map=scale_map)
    # A sum of 513 terms in another order.
    torch.testing.assert_close(results(ops.gaussian_log_prob, tensors, scale_map=scale_map), expected, rtol=1e-12, atol=1e-12)


def test_it_is_the_normal_density() -> None:
    x, mean, log_scale = inputs(9, 4)
    expected = torch.distributions.Normal(mean, log_scale.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(ops.gaussian_log_prob(x, mean, log_scale), expected)


@every_map
def test_it_is_the_last_block_of_a_flow(scale_map: ScaleMap) -> None:
    x, shift, log_scale = inputs(9, 4)
    z, log_det = ops.affine_autoregressive(x, shift, log_scale, scale_map=scale_map)
    torch.testing.assert_close(
        ops.gaussian_log_prob(x, shift, log_scale, scale_map=scale_map), ops.gaussian_log_prob(z) + log_det
    )


@pytest.mark.parametrize("given", [(False, False), (True, False), (False, True)], ids=["neither", "mean", "log_scale"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_defaults(cpu_variant: str, given: tuple[bool, bool], dtype: torch.dtype) -> None:
    x, mean, log_scale = inputs(9, 21, dtype)
    tensors = [x, mean if given[0] else None, log_scale if given[1] else None]
    # Without log_scale the scale is 1, whatever the map makes of 0.
    options = {"scale_map": SCALE_MAPS["sigmoid"]}
    expected = results(reference.gaussian_log_prob, tensors, **options)
    torch.testing.assert_close(results(ops.gaussian_log_prob, tensors, **options), expected)


def test_the_standard_normal_at_its_mode() -> None:
    log_prob = ops.gaussian_log_prob(torch.zeros(2, 3, dtype=torch.float64))
    assert log_prob.tolist() == pytest.approx([-1.5 * math.log(2 * math.pi)] * 2, rel=1e-15)


# The gradient of clamp_straight is not that of its value, by definition.
@pytest.mark.parametrize("kind", [k for k in SCALE_MAPS if k != "clamp_straight"])
def test_gradcheck(kind: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(3, 2)]
    torch.autograd.gradcheck(lambda *t: ops.gaussian_log_prob(*t, scale_map=SCALE_MAPS[kind]), tensors)


@pytest.mark.parametrize("kind", ["identity", "softplus", "soft_clip"])
def test_gradgradcheck(kind: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(2, 2)]
    torch.autograd.gradgradcheck(lambda *t: ops.gaussian_log_prob(*t, scale_map=SCALE_MAPS[kind]), tensors)


@pytest.mark.parametrize("count", [1, 2])
def test_gradgradcheck_of_the_defaults(count: int) -> None:
    tensors = [t.requires_grad_() for t in inputs(2, 2)[:count]]
    torch.autograd.gradgradcheck(ops.gaussian_log_prob, tensors)


@every_map
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_scales_are_those_of_the_reference(cpu_variant: str, scale_map: ScaleMap, dtype: torch.dtype) -> None:
    log_scale = torch.tensor([[a] for a in (-30.0, -18.5, -18.0, -1.0, 0.5, 1e-30, 0.0, 18.0, 40.0)], dtype=dtype)
    tensors = [torch.full_like(log_scale, 3.0), torch.full_like(log_scale, 1.0), log_scale]
    truth = results(reference.gaussian_log_prob, [t.double() for t in tensors], scale_map=scale_map)
    # Under e^(2 * 40) one unit in the last place of s becomes 80 of z^2.
    tolerance = 256 * torch.finfo(dtype).eps
    for value, exact in zip(results(ops.gaussian_log_prob, tensors, scale_map=scale_map), truth, strict=True):
        torch.testing.assert_close(value, exact.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2], ids=["x", "mean", "log_scale"])
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float, where: int) -> None:
    tensors = inputs(21, 5, torch.float32)
    clean = results(ops.gaussian_log_prob, tensors)
    tensors[where] = tensors[where].clone()
    tensors[where][4, 2] = bad
    others = torch.arange(21) != 4
    dirty = results(ops.gaussian_log_prob, tensors)
    for value, expected in zip(dirty, clean, strict=True):
        assert torch.equal(value[others], expected[others])
    assert not dirty[0][4].isfinite()


@pytest.mark.parametrize("features", [1, 3, 70])
def test_any_strides(cpu_variant: str, features: int) -> None:
    tensors = [t.contiguous() for t in inputs(19, features, torch.float32)]
    expected = results(ops.gaussian_log_prob, tensors, scale_map=SOFT_CLIP)
    for i in range(3):
        for strided in strided_like(tensors[i]):
            given = [strided if j == i else t for j, t in enumerate(tensors)]
            assert all(map(torch.equal, results(ops.gaussian_log_prob, given, scale_map=SOFT_CLIP), expected))


def test_any_strides_of_incoming_gradients(cpu_variant: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(6, 5)]
    log_prob = ops.gaussian_log_prob(*tensors)
    for grad in (torch.ones(()).double().expand(6), torch.randn(12).double()[::2]):
        given = torch.autograd.grad(log_prob, tensors, grad, retain_graph=True)
        assert all(map(torch.equal, given, torch.autograd.grad(log_prob, tensors, grad.contiguous(), retain_graph=True)))


@pytest.mark.parametrize("shape", [(5,), (1, 5), (4, 1), (1,), (), (2, 4, 5), (2, 1, 5)])
def test_mean_and_log_scale_broadcast(shape: tuple[int, ...]) -> None:
    tensors = [torch.randn(2, 4, 5).double(), torch.randn(shape).double(), torch.randn(shape).double()]
    expected = results(reference.gaussian_log_prob, tensors, scale_map=SOFT_CLIP)
    given = results(ops.gaussian_log_prob, tensors, scale_map=SOFT_CLIP)
    torch.testing.assert_close(given, expected)
    assert [t.shape for t in given] == [t.shape for t in expected]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4), (2, 1, 3, 1)])
def test_leading_dimensions(shape: tuple[int, ...]) -> None:
    tensors = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    given = results(ops.gaussian_log_prob, tensors)
    torch.testing.assert_close(given, results(reference.gaussian_log_prob, tensors))
    assert given[0].shape == shape[:-1]


@pytest.mark.parametrize("wanted", range(3))
def test_one_gradient_alone(wanted: int) -> None:
    tensors = inputs(5, 3)
    expected = results(ops.gaussian_log_prob, tensors)[1 + wanted]
    tensors[wanted] = tensors[wanted].clone().requires_grad_()
    log_prob = ops.gaussian_log_prob(*tensors)
    weights = torch.linspace(-1, 2, 5, dtype=log_prob.dtype)
    assert torch.equal(torch.autograd.grad(log_prob, tensors[wanted], weights)[0], expected)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    x, mean, log_scale = inputs(5, 3)
    needs = [True, False, False]
    grads = torch.ops.fastgen.gaussian_log_prob_backward(x.sum(-1), x, mean, log_scale, 0, 0.0, 0.0, needs)
    assert [g.numel() for g in grads] == [15, 0, 0]


def test_the_thread_count_does_not_change_a_bit() -> None:
    tensors = inputs(700, 64, torch.float32)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(results(ops.gaussian_log_prob, tensors, scale_map=SOFT_CLIP))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_compile(count: int) -> None:
    def loss(*tensors: Tensor) -> Tensor:
        return ops.gaussian_log_prob(*tensors, scale_map=SOFT_CLIP).square().sum()

    tensors = [t.requires_grad_() for t in inputs(5, 3)[:count]]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    pair = [torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    x, mean, log_scale = inputs(5, 3, dtype)
    grad = x.sum(-1)
    torch.library.opcheck(torch.ops.fastgen.gaussian_log_prob, (x, mean, log_scale, 5, 6.9, 0.0))
    torch.library.opcheck(torch.ops.fastgen.gaussian_log_prob, (x, None, None, 0, 0.0, 0.0))
    for needs in ([True, True, True], [False, True, False]):
        torch.library.opcheck(torch.ops.fastgen.gaussian_log_prob_backward, (grad, x, mean, log_scale, 0, 0.0, 0.0, needs))


def test_torch_func() -> None:
    x, mean, log_scale = inputs(4, 3)
    given, expected = (
        torch.func.grad(lambda s, f=f: f(x, mean, s).square().sum())(log_scale)
        for f in (ops.gaussian_log_prob, reference.gaussian_log_prob)
    )
    torch.testing.assert_close(given, expected)


def test_autocast_computes_in_float32() -> None:
    x, mean, log_scale = inputs(5, 3, torch.float32)
    halves = [mean.bfloat16().requires_grad_(), log_scale.bfloat16().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = ops.gaussian_log_prob(x, *halves)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, reference.gaussian_log_prob(x, *(t.float() for t in halves)))
    assert [g.dtype for g in torch.autograd.grad(log_prob.sum(), halves)] == [torch.bfloat16] * 2


def test_autocast_does_not_take_integers() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match="found torch"):
        ops.gaussian_log_prob(X, X.long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_run_on_the_reference(dtype: torch.dtype) -> None:
    tensors = inputs(5, 3, dtype)
    with backends.use("auto"):
        log_prob = ops.gaussian_log_prob(*tensors)
    assert log_prob.dtype == torch.float32 and torch.equal(log_prob, reference.gaussian_log_prob(*tensors))


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": X.long()}, TypeError, "x: expected a floating dtype, found torch.int64"),
        ({"x": torch.zeros(4, 0)}, ValueError, r"x: expected shape \(\.\.\., at least 1\), found \(4, 0\)"),
        ({"mean": torch.zeros(2)}, ValueError, r"mean: expected a shape broadcastable to x's \(4, 3\), found \(2,\)"),
        (
            {"mean": torch.zeros(1, 4, 3)},
            ValueError,
            r"mean: expected a shape broadcastable to x's \(4, 3\), found \(1, 4, 3\)",
        ),
        ({"mean": X.double()}, TypeError, "mean: expected x's dtype torch.float32, found torch.float64"),
        ({"log_scale": torch.zeros(2, 3)}, ValueError, "log_scale: expected a shape broadcastable to x's"),
        ({"log_scale": X.to("meta")}, ValueError, "log_scale: expected x's device cpu, found meta"),
        ({"log_scale": 1.0}, TypeError, "log_scale: expected a tensor, found float"),
    ],
)
def test_bad_arguments(arguments: dict[str, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.gaussian_log_prob(**{"x": X, **arguments})


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(4), "x: "),
        (0, torch.zeros(4, 0), "x: "),
        (0, X.long(), "x: "),
        (1, torch.zeros(4, 2), "mean: "),
        (2, X.double(), "log_scale: "),
        (3, 7, "kind: "),
        (6, torch.zeros(3), "log_prob: "),
        (6, torch.zeros(4).double(), "log_prob: "),
        (6, torch.zeros(8)[::2], "log_prob: .*contiguous"),
    ],
)
def test_the_compiled_forward_checks_every_argument(position: int, wrong: object, message: str) -> None:
    arguments = [X, X, X, 0, 0.0, 0.0, torch.zeros(4)]
    arguments[position] = wrong
    with pytest.raises((ValueError, TypeError), match=message):
        backends.compiled().gaussian_log_prob_forward(*arguments)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 7, 8, 9])
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    arguments = [torch.zeros(4), X, X, X, 0, 0.0, 0.0, *(torch.zeros(4, 3) for _ in range(3))]
    arguments[position] = torch.zeros(5)
    with pytest.raises((ValueError, TypeError), match="expected"):
        backends.compiled().gaussian_log_prob_backward(*arguments)


def test_the_compiled_backward_has_no_gradient_for_a_missing_log_scale() -> None:
    with pytest.raises(ValueError, match="grad_log_scale: expected None without log_scale"):
        backends.compiled().gaussian_log_prob_backward(torch.zeros(4), X, X, None, 0, 0.0, 0.0, None, None, torch.zeros(4, 3))
