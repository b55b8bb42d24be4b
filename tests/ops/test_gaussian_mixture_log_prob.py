from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.bench.memory import peak_bytes

pytestmark = pytest.mark.usefixtures("cpu_backend")

mixture = ops.gaussian_mixture_log_prob
definition = reference.gaussian_mixture_log_prob


def inputs(rows: int, components: int, features: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x, weight_logits, means and log_scales."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, features), (components,), (components, features), (components, features))
    x, logits, means, log_scales = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)
    return [t.to(dtype) for t in (x, logits, means, 0.3 * log_scales)]


def results(function: Callable, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The log-density and the gradients of all inputs, for gradients that differ from row to row."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    log_prob = function(*leaves)
    weights = torch.linspace(-1, 2, log_prob.numel(), dtype=log_prob.dtype).view_as(log_prob)
    return [log_prob.detach(), *torch.autograd.grad(log_prob, leaves, weights)]


# Rows, components and features beside the tiles of 4 to 32 rows, 8 to 256 components and 64 features.
SHAPES = [(1, 1, 1), (7, 5, 3), (33, 70, 65), (130, 300, 2), (9, 1500, 5), (40, 3, 200)]


@pytest.mark.parametrize("shape", SHAPES)
def test_float64_equals_the_reference(cpu_variant: str, shape: tuple[int, int, int]) -> None:
    tensors = inputs(*shape)
    torch.testing.assert_close(results(mixture, tensors), results(definition, tensors), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(2000, 5, 3), (133, 70, 65), (50, 1500, 2), (20, 30, 784)])
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, shape: tuple[int, int, int]) -> None:
    tensors = inputs(*shape, torch.float32)
    truth = results(definition, [t.double() for t in tensors])
    for triple in zip(results(mixture, tensors), results(definition, tensors), truth, strict=True):
        # Sums over rows or components may cancel in one element: each gradient is held to its norm.
        assert_as_accurate(*(t.flatten() for t in triple))


def test_far_from_the_origin_no_digits_are_lost(cpu_variant: str) -> None:
    """Distances by differences: multiplied out, squares of 10^4 would swallow them."""
    tensors = inputs(20, 6, 3, torch.float32)
    tensors[0], tensors[2] = 1e4 + tensors[0], 1e4 + tensors[2]
    truth = results(definition, [t.double() for t in tensors])
    for found, exact in zip(results(mixture, tensors), truth, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


def test_it_is_that_of_torch_distributions() -> None:
    x, logits, means, log_scales = inputs(9, 4, 3)
    d = torch.distributions
    components = d.Independent(d.Normal(means, log_scales.exp()), 1)
    expected = d.MixtureSameFamily(d.Categorical(logits=logits), components).log_prob(x)
    torch.testing.assert_close(mixture(x, logits, means, log_scales), expected)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4)])
@pytest.mark.parametrize("kind", ["shared", "spherical", "own weights", "weights broadcast", "own components"])
def test_batches(shape: tuple[int, ...], kind: str) -> None:
    batch, features = shape[:-1], shape[-1]
    logits, means, log_scales = (6,), (6, features), (6, features)
    if kind == "spherical":
        log_scales = (6, 1)
    elif kind == "own weights":
        logits = (*batch, 6)
    elif kind == "weights broadcast":
        logits = (*(1 for _ in batch), 6)
    elif kind == "own components":
        means = log_scales = (*batch, 6, features)
    tensors = [torch.randn(s, dtype=torch.float64) for s in (shape, logits, means, log_scales)]
    torch.testing.assert_close(results(mixture, tensors), results(definition, tensors), rtol=1e-11, atol=1e-11)


def test_any_strides(cpu_variant: str) -> None:
    tensors = inputs(19, 7, 5, torch.float32)
    expected = results(mixture, tensors)
    for i in (0, 2, 3):
        for strided in strided_like(tensors[i]):
            given = [strided if j == i else t for j, t in enumerate(tensors)]
            assert all(map(torch.equal, results(mixture, given), expected))
    sparse = torch.stack((tensors[1],) * 3, -1)[:, 1]
    assert all(map(torch.equal, results(mixture, [tensors[0], sparse, *tensors[2:]]), expected))


def test_any_strides_of_incoming_gradients(cpu_variant: str) -> None:
    tensors = [t.requires_grad_() for t in inputs(6, 4, 3)]
    log_prob = mixture(*tensors)
    for grad in (torch.ones(()).double().expand(6), torch.randn(12).double()[::2]):
        given = torch.autograd.grad(log_prob, tensors, grad, retain_graph=True)
        assert all(map(torch.equal, given, torch.autograd.grad(log_prob, tensors, grad.contiguous(), retain_graph=True)))


@pytest.mark.parametrize("own", [False, True])
def test_gradcheck(own: bool) -> None:
    tensors = inputs(3, 4, 2)
    if own:
        tensors[1] = torch.randn(3, 4, dtype=torch.float64)
    tensors = [t.requires_grad_() for t in tensors]
    torch.autograd.gradcheck(mixture, tensors)
    torch.autograd.gradgradcheck(mixture, tensors)


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted: int) -> None:
    tensors = inputs(5, 30, 3)
    expected = results(mixture, tensors)[1 + wanted]
    tensors[wanted].requires_grad_()
    log_prob = mixture(*tensors)
    weights = torch.linspace(-1, 2, 5, dtype=log_prob.dtype)
    assert torch.equal(torch.autograd.grad(log_prob, tensors[wanted], weights)[0], expected)


def test_components_of_weight_zero_do_not_count(cpu_variant: str) -> None:
    x, logits, means, log_scales = inputs(9, 40, 3)
    some = torch.arange(40) % 3 != 0
    found = results(mixture, [x, torch.where(some, logits, -math.inf), means, log_scales])
    expected = results(mixture, [x, logits[some], means[some], log_scales[some]])
    torch.testing.assert_close(found[:2], expected[:2])
    for f, e in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(f[some], e)
        assert not f[~some].any()


def test_all_components_far_away(cpu_variant: str) -> None:
    """Densities that underflow by themselves: the largest sets the scale."""
    tensors = inputs(5, 20, 3, torch.float32)
    tensors[0] = tensors[0] + 1e4
    truth = results(definition, [t.double() for t in tensors])
    torch.testing.assert_close(mixture(*tensors).double(), truth[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, bad: float) -> None:
    tensors = inputs(21, 40, 5, torch.float32)
    clean = results(mixture, tensors)
    tensors[0][4, 2] = bad
    others = torch.arange(21) != 4
    dirty = results(mixture, tensors)
    assert torch.equal(dirty[0][others], clean[0][others]) and torch.equal(dirty[1][others], clean[1][others])
    assert not dirty[0][4].isfinite()


def test_the_same_bits_again() -> None:
    tensors = inputs(300, 70, 9, torch.float32)
    assert all(map(torch.equal, results(mixture, tensors), results(mixture, tensors)))


def _call(size: int) -> Callable[[], object]:
    torch.set_num_threads(2)
    tensors = [t.requires_grad_() for t in inputs(size, 128, 64, torch.float32)]
    small = [t.requires_grad_() for t in inputs(64, 8, 8, torch.float32)]
    for given in (small,):
        torch.autograd.grad(mixture(*given).sum(), given)
    return lambda: torch.autograd.grad(mixture(*tensors).sum(), tensors)


def large_call() -> Callable[[], object]:
    return _call(10_000)


@pytest.mark.slow
def test_memory_stays_below_a_hundredth_of_rows_by_components_by_features() -> None:
    returned = 4 * (10_000 * 64 + 2 * 128 * 64 + 128)
    assert peak_bytes(large_call) - returned < 0.01 * 4 * 10_000 * 128 * 64


def test_compile() -> None:
    def loss(*tensors: Tensor) -> Tensor:
        return mixture(*tensors).square().sum()

    tensors = [t.requires_grad_() for t in inputs(5, 4, 3)]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    torch.testing.assert_close(*(torch.autograd.grad(f(*tensors), tensors) for f in (compiled, loss)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    tensors = inputs(5, 4, 3, dtype)
    operation, backward = torch.ops.fastgen.gaussian_mixture_log_prob, torch.ops.fastgen.gaussian_mixture_log_prob_backward
    torch.library.opcheck(operation, tensors)
    for needs in ([True] * 4, [False, True, False, False]):
        torch.library.opcheck(backward, (torch.randn(5, dtype=dtype), *operation(*tensors), *tensors, needs))


def test_autocast_and_half_types() -> None:
    halves = [t.bfloat16() for t in inputs(5, 4, 3)]
    expected = definition(*(t.float() for t in halves))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mixture(*halves), expected)
    with backends.use("auto"):
        assert torch.equal(mixture(*halves), expected)


X, W, M = torch.zeros(4, 3), torch.zeros(5), torch.zeros(5, 3)


@pytest.mark.parametrize(
    ("position", "wrong", "error", "message"),
    [
        (0, X.long(), TypeError, "x: expected a floating dtype, found torch.int64"),
        (0, torch.zeros(4, 0), ValueError, r"x: expected shape \(\.\.\., at least 1\)"),
        (1, torch.zeros(4), ValueError, r"weight_logits: expected shape \(\.\.\., 5\), found \(4,\)"),
        (1, torch.zeros(3, 5), ValueError, r"weight_logits: expected a batch that broadcasts to \(4,\), found \(3,\)"),
        (1, W.double(), TypeError, "weight_logits: expected x's dtype"),
        (2, torch.zeros(5, 2), ValueError, r"means: expected shape \(\.\.\., at least 1, 3\), found \(5, 2\)"),
        (2, torch.zeros(0, 3), ValueError, r"means: expected shape \(\.\.\., at least 1, 3\), found \(0, 3\)"),
        (2, torch.zeros(3, 5, 3), ValueError, r"log_scales: expected means' shape \(3, 5, 3\)"),
        (3, torch.zeros(5, 2), ValueError, r"log_scales: expected means' shape \(5, 3\), or with a last axis of 1, found"),
        (3, 1.0, TypeError, "log_scales: expected a tensor, found float"),
    ],
)
def test_bad_arguments(position: int, wrong: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mixture(*(wrong if i == position else t for i, t in enumerate((X, W, M, M))))


@pytest.mark.parametrize("position", range(11))
def test_the_compiled_backward_checks_every_tensor(position: int) -> None:
    arguments = [*(torch.zeros(4) for _ in range(3)), X, W, M, M, torch.zeros(4, 3), torch.zeros(5), M.clone(), M.clone()]
    backends.compiled().gaussian_mixture_log_prob_backward(*arguments)
    for wrong in (torch.zeros(7, 2), torch.zeros(6), torch.zeros(4, 3).double(), torch.zeros(0, 3).long()):
        with pytest.raises((ValueError, TypeError), match="expected"):
            backends.compiled().gaussian_mixture_log_prob_backward(
                *(wrong if i == position else a for i, a in enumerate(arguments))
            )


def test_the_compiled_forward_checks_its_output() -> None:
    for wrong in (torch.zeros(3), torch.zeros(4).double(), torch.zeros(8)[::2]):
        with pytest.raises((ValueError, TypeError), match="remainder: expected"):
            backends.compiled().gaussian_mixture_log_prob_forward(X, W, M, M, torch.zeros(4), wrong)
        with pytest.raises((ValueError, TypeError), match="log_prob: expected"):
            backends.compiled().gaussian_mixture_log_prob_forward(X, W, M, M, wrong, torch.zeros(4))
