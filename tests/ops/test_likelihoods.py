"""bernoulli_log_prob, categorical_log_prob and discretized_logistic_log_prob."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference

pytestmark = pytest.mark.usefixtures("cpu_backend")

NAMES = ("bernoulli_log_prob", "discretized_logistic_log_prob", "categorical_log_prob")
every = pytest.mark.parametrize("name", NAMES)
CATEGORIES = 6


def inputs(name: str, rows: int, features: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The outcomes and what the decoder puts out."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if name == "categorical_log_prob":
        x = torch.randint(CATEGORIES, (rows, features), generator=generator)
        return [x, draw(rows, features, CATEGORIES).to(dtype)]
    x = draw(rows, features).sigmoid()
    if name == "bernoulli_log_prob":
        # Also certain outcomes.
        return [torch.where(x > 0.6, x, x.round()).to(dtype), (3 * draw(rows, features)).to(dtype)]
    x = (1.3 * x - 0.15).clamp(0, 1)
    return [((255 * x).round() / 255).to(dtype), draw(rows, features).sigmoid().to(dtype), (draw(rows, features) - 2).to(dtype)]


def results(function: Callable, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The log-probability and the gradients of all floating inputs, for gradients that differ from row to row."""
    given = [t.detach().requires_grad_(t.is_floating_point()) for t in tensors]
    log_prob = function(*given)
    weights = torch.linspace(-1, 2, log_prob.numel(), dtype=log_prob.dtype).view_as(log_prob)
    return [log_prob.detach(), *torch.autograd.grad(log_prob, [t for t in given if t.requires_grad], weights)]


def both(name: str) -> tuple[Callable, Callable]:
    return getattr(ops, name), getattr(reference, name)


@every
@pytest.mark.parametrize("shape", [(600, 1), (9, 5), (5, 700)])
def test_float64_equals_the_reference(cpu_variant: str, name: str, shape: tuple[int, int]) -> None:
    found, expected = (results(f, inputs(name, *shape)) for f in both(name))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@every
@pytest.mark.parametrize("shape", [(2000, 1), (33, 64), (5, 1100)])
def test_float32_is_as_accurate_as_pytorch(cpu_variant: str, name: str, shape: tuple[int, int]) -> None:
    operation, definition = both(name)
    tensors = inputs(name, *shape, torch.float32)
    truth = results(definition, [t.double() if t.is_floating_point() else t for t in tensors])
    for triple in zip(results(operation, tensors), results(definition, tensors), truth, strict=True):
        # One element may cancel to nothing: where rows have one, the batch is the row.
        assert_as_accurate(*(t.flatten() for t in triple))


def test_they_are_those_of_torch() -> None:
    x, logits = inputs("bernoulli_log_prob", 9, 4)
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    torch.testing.assert_close(ops.bernoulli_log_prob(x, logits), expected)
    x, logits = inputs("categorical_log_prob", 9, 4)
    expected = torch.distributions.Categorical(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(ops.categorical_log_prob(x, logits), expected)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_levels_have_probability_one(levels: int) -> None:
    x = torch.linspace(0, 1, levels, dtype=torch.float64)[:, None]
    for mean, log_scale in ((0.3, -1.0), (0.9, -4.0), (-2.0, 1.0), (0.5, -7.0)):
        given = (torch.full_like(x, mean), torch.full_like(x, log_scale))
        log_prob = ops.discretized_logistic_log_prob(x, *given, levels=levels)
        assert log_prob.exp().sum().item() == pytest.approx(1, rel=1e-12)


def test_discretized_logistic_far_out(cpu_variant: str) -> None:
    """Scales and distances at which the difference of two sigmoids is 0 or its logarithm's argument 1."""
    x = torch.tensor([[0.0], [0.2], [1.0]], dtype=torch.float64).repeat(4, 1)
    mean = torch.tensor([-5.0, 0.2, 0.7, 30.0], dtype=torch.float64).repeat_interleave(3)[:, None]
    for log_scale in (-6.0, -3.0, 0.0, 5.0, 30.0):
        tensors = [x, mean, torch.full_like(x, log_scale)]
        found, expected = (results(f, tensors) for f in both("discretized_logistic_log_prob"))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        assert found[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_of_certain_and_extreme_logits(cpu_variant: str, dtype: torch.dtype) -> None:
    inf = math.inf
    logits = torch.tensor([inf, inf, -inf, -inf, inf, 0.0, 90.0, -90.0, 800.0], dtype=dtype)[:, None]
    x = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.0], dtype=dtype)[:, None]
    found, expected = (results(f, [x, logits]) for f in both("bernoulli_log_prob"))
    assert found[0].tolist()[:5] == [0.0, -inf, 0.0, -inf, -inf]
    assert found[0][7:].tolist() == [-90.0, -800.0] and found[0][5].item() == pytest.approx(-math.log(2))
    weights = torch.linspace(-1, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(found[2][:5, 0].double(), weights[:5] * torch.tensor([0, -1, 0, 1, -0.5]).double())
    torch.testing.assert_close(found, expected)


def test_bernoulli_at_logit_zero_has_its_gradient() -> None:
    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for function in both("bernoulli_log_prob"):
        (grad,) = torch.autograd.grad(function(torch.ones(2, 3).double(), logits).sum(), logits)
        assert torch.equal(grad, torch.full_like(grad, 0.5))


@pytest.mark.parametrize("categories", [1, 2, 17, 512, 513, 1200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_categories(cpu_variant: str, categories: int, dtype: torch.dtype) -> None:
    logits = 1e3 + 5 * torch.randn(7, 3, categories, dtype=dtype)
    tensors = [torch.randint(categories, (7, 3)), logits]
    found, expected = (results(f, tensors) for f in both("categorical_log_prob"))
    torch.testing.assert_close(found, expected)


def test_impossible_categories(cpu_variant: str) -> None:
    x, logits = inputs("categorical_log_prob", 5, 3)
    logits[0, 1, (x[0, 1] + 1) % CATEGORIES] = -math.inf
    logits[1, 1, x[1, 1]] = -math.inf
    found, expected = (results(f, [x, logits]) for f in both("categorical_log_prob"))
    torch.testing.assert_close(found, expected)
    assert found[0][1] == -math.inf and found[0][0].isfinite()


@pytest.mark.parametrize("x", [-1, CATEGORIES, 2**40])
def test_what_is_no_category_is_nan_and_nothing_crashes(cpu_variant: str, x: int) -> None:
    outcomes, logits = inputs("categorical_log_prob", 5, 3)
    outcomes[2, 1] = x
    log_prob = results(ops.categorical_log_prob, [outcomes, logits])[0]
    assert log_prob[2].isnan() and log_prob.isfinite().sum() == 4


@every
def test_any_strides(cpu_variant: str, name: str) -> None:
    tensors = inputs(name, 19, 7, torch.float32)
    expected = results(getattr(ops, name), tensors)
    for i, t in enumerate(tensors):
        room = torch.zeros(*t.shape, 2, dtype=t.dtype)
        room[..., 1] = t
        others = strided_like(t) if t.dim() == 2 and t.is_floating_point() else [room[..., 1], t.mT.contiguous().mT]
        for strided in others:
            given = [strided if j == i else other for j, other in enumerate(tensors)]
            assert all(map(torch.equal, results(getattr(ops, name), given), expected))


@every
def test_any_strides_of_incoming_gradients(name: str) -> None:
    tensors = inputs(name, 6, 5)
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    log_prob = getattr(ops, name)(*tensors)
    for grad in (torch.ones(()).double().expand(6), torch.randn(12).double()[::2]):
        given = torch.autograd.grad(log_prob, leaves, grad, retain_graph=True)
        assert all(map(torch.equal, given, torch.autograd.grad(log_prob, leaves, grad.contiguous(), retain_graph=True)))


@every
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 3, 4)])
def test_leading_dimensions(name: str, shape: tuple[int, ...]) -> None:
    tensors = [t.reshape(*shape, *t.shape[2:]) for t in inputs(name, math.prod(shape[:-1]), shape[-1])]
    found, expected = (results(f, tensors) for f in both(name))
    torch.testing.assert_close(found, expected)
    assert found[0].shape == shape[:-1]


@every
def test_outcomes_broadcast_to_samples(name: str) -> None:
    """One batch of data under many samples of the decoder, and the other way round."""
    few, many = inputs(name, 3, 4), inputs(name, 6, 4)
    for tensors in (
        [few[0], *(t.view(2, 3, *t.shape[1:]) for t in many[1:])],
        [many[0].view(2, 3, 4), *few[1:]],
    ):
        found, expected = (results(f, tensors) for f in both(name))
        torch.testing.assert_close(found, expected)


@every
def test_a_bad_row_leaves_the_others_alone(cpu_variant: str, name: str) -> None:
    tensors = inputs(name, 21, 5, torch.float32)
    clean = results(getattr(ops, name), tensors)
    tensors[1][4, 2] = torch.nan
    dirty = results(getattr(ops, name), tensors)
    others = torch.arange(21) != 4
    assert all(torch.equal(d[others], c[others]) for d, c in zip(dirty, clean, strict=True))
    assert dirty[0][4].isnan()


@every
def test_gradcheck(name: str) -> None:
    x, *rest = inputs(name, 3, 2)
    # Away from the ends of the levels, where the function of x is not smooth.
    x = x if name == "categorical_log_prob" else (0.2 + 0.5 * x).requires_grad_()
    tensors = [x, *(t.requires_grad_() for t in rest)]
    torch.autograd.gradcheck(getattr(ops, name), tensors)
    torch.autograd.gradgradcheck(getattr(ops, name), tensors)


@every
def test_one_gradient_alone(name: str) -> None:
    tensors = inputs(name, 5, 3)
    expected = results(getattr(ops, name), tensors)[1:]
    leaves = [i for i, t in enumerate(tensors) if t.is_floating_point()]
    for place, i in enumerate(leaves):
        given = [t.detach().requires_grad_(j == i) for j, t in enumerate(tensors)]
        log_prob = getattr(ops, name)(*given)
        weights = torch.linspace(-1, 2, 5, dtype=log_prob.dtype)
        assert torch.equal(torch.autograd.grad(log_prob, given[i], weights)[0], expected[place])


@every
def test_compile(name: str) -> None:
    def loss(*tensors: Tensor) -> Tensor:
        return getattr(ops, name)(*tensors).square().sum()

    tensors = inputs(name, 5, 3)
    leaves = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))
    torch.testing.assert_close(*(torch.autograd.grad(f(*tensors), leaves) for f in (compiled, loss)))


def test_opcheck() -> None:
    library, g = torch.ops.fastgen, torch.randn(5).double()
    x, logits = inputs("bernoulli_log_prob", 5, 3)
    torch.library.opcheck(library.bernoulli_log_prob, (x, logits))
    torch.library.opcheck(library.bernoulli_log_prob_backward, (g, x, logits, [False, True]))
    tensors = inputs("discretized_logistic_log_prob", 5, 3)
    torch.library.opcheck(library.discretized_logistic_log_prob, (*tensors, 256))
    torch.library.opcheck(library.discretized_logistic_log_prob_backward, (g, *tensors, 256, [True, False, True]))
    x, logits = inputs("categorical_log_prob", 5, 3)
    torch.library.opcheck(library.categorical_log_prob, (x, logits))
    torch.library.opcheck(library.categorical_log_prob_backward, (g, x, logits))


@every
def test_autocast_and_half_types(name: str) -> None:
    halves = [t.bfloat16() if t.is_floating_point() else t for t in inputs(name, 5, 3)]
    expected = getattr(reference, name)(*(t.float() if t.is_floating_point() else t for t in halves))
    with torch.autocast("cpu", torch.bfloat16):
        found = getattr(ops, name)(*halves)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    with backends.use("auto"):
        assert torch.equal(getattr(ops, name)(*halves), getattr(reference, name)(*halves))


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("bernoulli_log_prob", (X.long(), X), TypeError, "x: expected a floating dtype, found torch.int64"),
        ("bernoulli_log_prob", (X, X.double()), TypeError, "logits: expected x's dtype torch.float32, found torch.float64"),
        (
            "bernoulli_log_prob",
            (X, torch.zeros(4, 2)),
            ValueError,
            r"x, logits: expected shapes that broadcast, found x \(4, 3\), logits",
        ),
        ("bernoulli_log_prob", (X, torch.zeros(4, 0)), ValueError, "logits: expected shape"),
        ("discretized_logistic_log_prob", (X, X, 1.0), TypeError, "log_scale: expected a tensor, found float"),
        ("discretized_logistic_log_prob", (X, X.to("meta"), X), ValueError, "mean: expected x's device cpu, found meta"),
        ("categorical_log_prob", (X, X), TypeError, "x: expected an int64 tensor, found torch.float32"),
        ("categorical_log_prob", (X.long(), X.long()), TypeError, "logits: expected a floating dtype"),
        ("categorical_log_prob", (X.long(), torch.zeros(4, 2, 5)), ValueError, "x, logits: expected shapes that broadcast"),
        (
            "categorical_log_prob",
            (X.long(), torch.zeros(4, 3, 0)),
            ValueError,
            r"logits: expected shape \(\.\.\., at least 1\)",
        ),
        ("categorical_log_prob", (X.long(), torch.zeros(5)), ValueError, "logits"),
    ],
)
def test_bad_arguments(name: str, arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(ops, name)(*arguments)


def test_too_few_levels() -> None:
    with pytest.raises(ValueError, match="levels: expected at least 2, found 1"):
        ops.discretized_logistic_log_prob(X, X, X, levels=1)


Y = torch.zeros(4)
CALLS = {
    "bernoulli_log_prob_forward": [X, X, Y],
    "bernoulli_log_prob_backward": [Y, X, X, X.clone(), X.clone()],
    "discretized_logistic_log_prob_forward": [X, X, X, 256, Y],
    "discretized_logistic_log_prob_backward": [Y, X, X, X, 256, X.clone(), X.clone(), X.clone()],
    "categorical_log_prob_forward": [Y.long(), X, Y.clone()],
    "categorical_log_prob_backward": [torch.zeros(2), Y.long(), X, 2, X.clone()],
}


@pytest.mark.parametrize(("name", "position"), [(n, i) for n, a in CALLS.items() for i in range(len(a))])
def test_the_boundary_checks_every_argument(name: str, position: int) -> None:
    function, arguments = getattr(backends.compiled(), name), CALLS[name]
    function(*arguments)
    if isinstance(arguments[position], int):
        wrongs: list[object] = [0, -1] if "levels" in name or "logistic" in name else [0, 3]
    else:
        wrongs = [torch.zeros(7, 2), torch.zeros(3), X.double(), torch.zeros(9, 9)[::2, ::3]]
    for wrong in wrongs:
        with pytest.raises((ValueError, TypeError), match="expected"):
            function(*(wrong if i == position else a for i, a in enumerate(arguments)))
