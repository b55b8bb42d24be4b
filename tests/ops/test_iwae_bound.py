from __future__ import annotations

import math

import pytest
import torch

from fastgen import ops, reference

LOG_W = 5 * torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_value_and_gradient() -> None:
    log_w = LOG_W.clone().requires_grad_()
    bound = ops.iwae_bound(log_w)
    torch.testing.assert_close(bound, log_w.logsumexp(0) - math.log(6))
    (grad,) = torch.autograd.grad(bound.sum(), log_w)
    torch.testing.assert_close(grad, log_w.softmax(0))
    torch.testing.assert_close(reference.iwae_bound(log_w), bound)


def test_one_sample_is_the_bound_itself() -> None:
    assert torch.equal(ops.iwae_bound(LOG_W[:1]), LOG_W[0])


def test_weights_of_zero() -> None:
    log_w = LOG_W.clone()
    log_w[:, 0, 0], log_w[2, 1, 1] = -math.inf, -math.inf
    for function in (ops.iwae_bound, reference.iwae_bound):
        leaf = log_w.clone().requires_grad_()
        bound = function(leaf)
        (grad,) = torch.autograd.grad(bound.sum(), leaf)
        assert bound[0, 0] == -math.inf and not grad[:, 0, 0].any() and grad[2, 1, 1] == 0
        rest = torch.ones(3, 4, dtype=torch.bool)
        rest[0, 0] = False
        torch.testing.assert_close(grad[:, rest], log_w.softmax(0)[:, rest])


def test_float32_does_not_overflow() -> None:
    log_w = torch.tensor([[1e4, -1e4], [1e4 + 1, -1e4]])
    torch.testing.assert_close(ops.iwae_bound(log_w), reference.iwae_bound(log_w.double()).float())


def test_gradcheck() -> None:
    log_w = LOG_W[:, 0].clone().requires_grad_()
    torch.autograd.gradcheck(ops.iwae_bound, log_w)
    torch.autograd.gradgradcheck(ops.iwae_bound, log_w)


def test_compile() -> None:
    compiled = torch.compile(lambda w: ops.iwae_bound(w).square().sum(), fullgraph=True, backend="aot_eager")
    log_w = LOG_W.clone().requires_grad_()
    found, expected = (torch.autograd.grad(f(log_w), log_w)[0] for f in (compiled, lambda w: ops.iwae_bound(w).square().sum()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_types_return_float32(dtype: torch.dtype) -> None:
    log_w = LOG_W.to(dtype).requires_grad_()
    bound = ops.iwae_bound(log_w)
    assert bound.dtype == torch.float32
    torch.testing.assert_close(bound, reference.iwae_bound(log_w.float()))
    assert torch.autograd.grad(bound.sum(), log_w)[0].dtype == dtype


@pytest.mark.parametrize("shape", [(3, 0), (3,), (2, 5, 1)])
def test_shapes(shape: tuple[int, ...]) -> None:
    assert ops.iwae_bound(torch.zeros(shape)).shape == shape[1:]


@pytest.mark.parametrize(
    ("log_w", "error", "message"),
    [
        (torch.zeros(3).long(), TypeError, "log_w: expected a floating dtype"),
        (1.0, TypeError, "log_w: expected a tensor, found float"),
        (torch.zeros(()), ValueError, r"log_w: expected shape \(at least 1, \.\.\.\), found \(\)"),
        (torch.zeros(0, 3), ValueError, r"found \(0, 3\)"),
    ],
)
def test_bad_arguments(log_w: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.iwae_bound(log_w)  # type: ignore[arg-type]
