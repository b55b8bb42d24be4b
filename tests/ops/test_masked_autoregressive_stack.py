"""Stacks of blocks: what one call gives for several is what the calls for each give."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from inverses import NETWORKS, ORDER, SOFT_CLIP, case
from networks import network
from support import assert_as_accurate, strided_like
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.ops import AutoregressiveBlock
from fastgen.reference.autoregressive_inverse import FORMS

pytestmark = pytest.mark.usefixtures("cpu_backend")

STACK, LOG_PROB = "masked_autoregressive_stack", "masked_autoregressive_stack_log_prob"
every_name = pytest.mark.parametrize("name", [STACK, LOG_PROB])
NETS = [NETWORKS[name] for name in ("any order", "residual and direct", "no hidden layer")]


def given(rows: int, context: bool, dtype: torch.dtype = torch.float64, nets=NETS) -> list[Tensor | None]:  # type: ignore[no-untyped-def]
    """x and log_det, then of each block the context's terms and the parameters."""
    cases = [case(net, rows, context, dtype) for net in nets]
    return [cases[0][0], cases[0][2], *(t for _, terms, _, *params in cases for t in (terms, *params))]


def call(module, name: str, tensors: Sequence[Tensor | None], nets=NETS, **options) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    x, log_det, *rest = tensors
    blocks = []
    for i, net in enumerate(nets):
        terms, *params = rest[: 1 + net.parameter_count]
        rest = rest[1 + net.parameter_count :]
        blocks.append(AutoregressiveBlock(net, params, FORMS[i % 2], SOFT_CLIP, terms))
    found = getattr(module, name)(x, blocks, log_det=log_det, **options)
    return found if isinstance(found, tuple) else (found,)


def results(module, name: str, tensors: Sequence[Tensor | None], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    outputs = call(module, name, leaves, **options)
    grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, [t for t in leaves if t is not None], grads)]


@every_name
@pytest.mark.parametrize("context", [False, True], ids=["", "context"])
@pytest.mark.parametrize("rows", [0, 1, 37])
def test_float64_equals_the_reference(cpu_variant: str, rows: int, context: bool, name: str) -> None:
    tensors = given(rows, context)
    expected = results(reference, name, tensors)
    torch.testing.assert_close(results(ops, name, tensors), expected, rtol=1e-10, atol=1e-10)
    plain = call(ops, name, tensors)
    torch.testing.assert_close(list(plain), expected[: len(plain)], rtol=1e-11, atol=1e-11)


@every_name
def test_it_is_block_after_block(name: str) -> None:
    tensors = given(20, True, torch.float32)
    x, log_det, *rest = tensors
    found = call(ops, name, tensors)
    for i, net in enumerate(NETS):
        terms, *params = rest[: 1 + net.parameter_count]
        rest = rest[1 + net.parameter_count :]
        single = ops.masked_autoregressive_log_prob if name == LOG_PROB and i == 2 else ops.masked_autoregressive
        options = {"form": FORMS[i % 2], "scale_map": SOFT_CLIP, "context_terms": terms}
        outcome = single(x, net, params, log_det=log_det, **options)
        x, log_det = outcome if isinstance(outcome, tuple) else (x, outcome)
    expected = (x, log_det)[-len(found) :]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_float32_is_as_accurate_as_pytorch(cpu_variant: str) -> None:
    nets = [network(range(1, 33), (128, 150)), network(range(32, 0, -1), (128,))]
    tensors = given(60, False, torch.float32, nets)
    truth = results(reference, STACK, [t if t is None else t.double() for t in tensors], nets=nets)
    found, expected = (results(module, STACK, tensors, nets=nets) for module in (ops, reference))
    for triple in zip(found, expected, truth, strict=True):
        assert_as_accurate(*(t.flatten() for t in triple))


@every_name
def test_gradients_that_are_not_asked_for(name: str) -> None:
    tensors = given(5, True)
    everything = results(ops, name, tensors)[-len(tensors) :]
    for wanted in range(len(tensors)):
        leaves = [t if t is None else t.detach().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
        if leaves[wanted] is None:
            continue
        outputs = call(ops, name, leaves)
        grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
        (grad,) = torch.autograd.grad(outputs, [leaves[wanted]], grads)
        index = sum(t is not None for t in tensors[:wanted]) - sum(t is not None for t in tensors)
        torch.testing.assert_close(grad, everything[index], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", [0, 1], ids=["z", "log_det"])
def test_a_gradient_of_one_output_alone(which: int) -> None:
    found = []
    for module in (ops, reference):
        leaves = [None if t is None else t.detach().requires_grad_() for t in given(6, True)]
        output = call(module, STACK, leaves)[which]
        tensors = [t for t in leaves if t is not None]
        found.append(torch.autograd.grad(output.square().sum(), tensors, allow_unused=True))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@every_name
def test_second_derivatives_are_the_references(name: str) -> None:
    nets = [network((2, 1, 3), (6,), activation="tanh"), network((1, 2, 3), (5,), activation="tanh")]
    leaves = [t.requires_grad_() for t in given(2, True, nets=nets)]
    torch.autograd.gradcheck(lambda *t: call(ops, name, t, nets=nets), leaves)
    torch.autograd.gradgradcheck(lambda *t: call(ops, name, t, nets=nets), leaves)


@every_name
def test_any_strides_and_batch(name: str) -> None:
    x, log_det, *rest = given(12, False)
    expected = call(ops, name, [x, log_det, *rest])
    for view in strided_like(x):
        torch.testing.assert_close(call(ops, name, [view, log_det, *rest]), expected)
    found = call(ops, name, [x.view(3, 4, 7), log_det.view(3, 4), *rest])
    torch.testing.assert_close(found, tuple(t.view(3, 4, *t.shape[1:]) for t in expected))


@every_name
def test_what_is_given_is_not_written_to(name: str) -> None:
    tensors = given(9, True)
    before = [t if t is None else t.clone() for t in tensors]
    leaves = [t if t is None else t.requires_grad_() for t in tensors]
    outputs = call(ops, name, leaves)
    grads = [torch.ones_like(y) for y in outputs]
    torch.autograd.grad(outputs, [t for t in leaves if t is not None], grads)
    assert all(torch.equal(grad, torch.ones_like(grad)) for grad in grads)
    assert all(t is None or torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


@every_name
def test_a_row_that_is_not_finite_spoils_no_other(name: str) -> None:
    tensors = given(30, False)
    clean = call(ops, name, tensors)
    tensors[0] = tensors[0].clone()
    tensors[0][11, 3] = torch.nan
    spoilt = call(ops, name, tensors)
    others = torch.arange(30) != 11
    assert all(torch.equal(a[others], b[others]) for a, b in zip(clean, spoilt, strict=True))
    assert spoilt[-1][11].isnan()


@every_name
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(name: str, backend: str) -> None:
    plans = [ops.make_network_plan(net) for net in NETS]

    def loss(*tensors: Tensor) -> Tensor:
        return sum(y.square().sum() for y in call(ops, name, tensors, plans=plans))

    leaves = [t.requires_grad_() for t in given(6, True)]
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), expected)


@every_name
def test_autocast_and_other_dtypes(name: str) -> None:
    tensors = given(5, False, torch.float32)
    exact = call(ops, name, tensors)
    with backends.use("auto"):
        half = call(ops, name, [t if t is None else t.bfloat16() for t in (tensors[0], None, *tensors[2:])])
        with torch.autocast("cpu", torch.bfloat16):
            cast = call(ops, name, tensors)
    torch.testing.assert_close(cast, exact, rtol=0.1, atol=0.1)
    assert [t.dtype for t in half] == [torch.bfloat16, torch.float32][-len(half) :]


SHORT, NONE = r"blocks\[1\]: params: expected 6 tensors, found 5", r"blocks\[1\]: params\[0\]: expected a tensor"
BLOCK = AutoregressiveBlock(NETS[0], given(4, False)[3 : 3 + NETS[0].parameter_count])
X = torch.zeros(4, 7, dtype=torch.float64)


@every_name
@pytest.mark.parametrize(
    ("blocks", "options", "error", "message"),
    [
        ([], {}, ValueError, "blocks: expected at least one, found none"),
        ([BLOCK] * 2, {"plans": [None]}, ValueError, "plans: expected one for each of 2 blocks, found 1"),
        ([BLOCK, BLOCK._replace(form="add")], {}, ValueError, r"blocks\[1\]: form: expected one of multiply, divide"),
        (
            [BLOCK, BLOCK._replace(params=BLOCK.params[:-1])],
            {},
            ValueError,
            r"blocks\[1\]: params: expected 6 tensors, found 5",
        ),
        (
            [BLOCK, BLOCK._replace(params=[None, *BLOCK.params[1:]])],
            {},
            TypeError,
            r"blocks\[1\]: params\[0\]: expected a tensor",
        ),
        (
            [BLOCK, BLOCK._replace(params=[p.float() for p in BLOCK.params])],
            {},
            TypeError,
            r"blocks\[1\]: params\[0\]: expected x's dtype",
        ),
        ([BLOCK, BLOCK._replace(context_terms=X)], {}, ValueError, "context_terms: expected shape"),
        ([BLOCK] * 2, {"log_det": X}, ValueError, "log_det: expected shape"),
        (
            [BLOCK, BLOCK],
            {"plans": [ops.make_network_plan(NETS[0]), ops.make_network_plan(network(ORDER, (5,)))]},
            ValueError,
            "plan: expected that of a network with weights",
        ),
    ],
)
def test_bad_arguments_are_named(name: str, blocks, options, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        getattr(ops, name)(X, blocks, **options)
