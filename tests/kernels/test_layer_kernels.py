"""Planar and radial layers and their inverses on Triton kernels."""

from __future__ import annotations

import pytest
import torch
from compare import RUNS_KERNELS, assert_matches
from layers import OPERATIONS, inputs, pair, results
from torch import Tensor

from fastgen import backends, ops, reference

pytestmark = RUNS_KERNELS

every_operation = pytest.mark.parametrize("name", OPERATIONS)
both_kinds = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_row"])


def _inputs(device: str, name: str, batch: int, features: int, layers: int, **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    return [t.to(device) for t in inputs(name, (batch,), features, layers, **options)]


@every_operation
@both_kinds
@pytest.mark.parametrize(("batch", "features", "layers"), [(120, 13, 3), (300, 1, 4)])
def test_float32(device: str, name: str, shared: bool, batch: int, features: int, layers: int) -> None:
    options = {"shared": shared, "dtype": torch.float32}
    draws = [_inputs(device, name, batch, features, layers, seed=seed, **options) for seed in range(9 if features == 1 else 1)]
    assert_matches(*pair(name), *draws)


@every_operation
@both_kinds
@pytest.mark.parametrize(("batch", "features"), [(40, 5), (3, 1100)])
def test_float64(device: str, name: str, shared: bool, batch: int, features: int) -> None:
    tensors = _inputs(device, name, batch, features, 2, shared=shared)
    with backends.use("triton"):
        found = results(pair(name)[0], tensors)
    # Sums in another order; what Newton's method stops at.
    torch.testing.assert_close(found, results(pair(name)[1], tensors), rtol=1e-11, atol=1e-11)


@every_operation
@both_kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(device: str, name: str, shared: bool, dtype: torch.dtype) -> None:
    assert_matches(*pair(name), _inputs(device, name, 40, 5, 2, shared=shared, dtype=dtype))


@every_operation
@both_kinds
def test_no_rows(device: str, name: str, shared: bool) -> None:
    tensors = [t.requires_grad_() for t in _inputs(device, name, 0, 3, 2, shared=shared)]
    with backends.use("triton"):
        out, log_det = pair(name)[0](*tensors)
        grads = torch.autograd.grad(out.sum() + log_det.sum(), tensors)
    assert out.shape == (0, 3) and all(g.shape == t.shape and not g.any() for g, t in zip(grads, tensors, strict=True))


@every_operation
@both_kinds
def test_one_incoming_gradient_and_strides(device: str, name: str, shared: bool) -> None:
    z, *parameters = _inputs(device, name, 20, 6, 2, shared=shared)
    tensors = [t.requires_grad_() for t in (z.T.contiguous().T, *parameters)]
    operation, definition = pair(name)
    for output in range(2):
        with backends.use("triton"):
            found = torch.autograd.grad(operation(*tensors)[output].sum(), tensors)
        expected = torch.autograd.grad(definition(*tensors)[output].sum(), tensors)
        torch.testing.assert_close(found, expected)


@both_kinds
def test_unconstrained(device: str, shared: bool) -> None:
    tensors = _inputs(device, "planar", 20, 6, 2, shared=shared, dtype=torch.float32)
    assert_matches(lambda *t: ops.planar(*t, constrain=False), lambda *t: reference.planar(*t, constrain=False), tensors)


def test_extreme_stretches(device: str) -> None:
    z = torch.tensor([0.0, 1e-25, 1e-18, 1e-3, 1.0, 40.0, -2.0], device=device)[:, None]
    w, b = torch.ones(1, 1, device=device), torch.zeros(1, device=device)
    for along in (-300.0, -120.0, -50.0, 80.0):
        u = torch.full((1, 1), along, device=device)
        with backends.use("triton"):
            _, log_det = ops.planar(z, u, w, b)
        truth = reference.planar(z.double(), u.double(), w.double(), b.double())[1]
        # A few roundings of float32.
        torch.testing.assert_close(log_det.double(), truth, rtol=2e-6, atol=2e-6)
