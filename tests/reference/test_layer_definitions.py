"""The definitions of planar and radial layers against the determinants and derivatives of autograd, in float64."""

from __future__ import annotations

import pytest
import torch
from layers import OPERATIONS, inputs
from torch import Tensor

from fastgen import reference

every_operation = pytest.mark.parametrize("name", OPERATIONS)


@every_operation
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("features", [1, 2, 5])
def test_log_det_is_that_of_the_jacobian(name: str, shared: bool, features: int) -> None:
    definition = getattr(reference, name)
    z, *parameters = inputs(name, (4,), features, 3, shared=shared)
    _, log_det = definition(z, *parameters)
    for i in range(4):
        own = parameters if shared else [p[i] for p in parameters]
        jacobian = torch.autograd.functional.jacobian(lambda x, own=own: definition(x, *own)[0], z[i])
        torch.testing.assert_close(log_det[i], jacobian.slogdet()[1], rtol=1e-9, atol=1e-9)


@every_operation
def test_derivatives_at_0_are_those_beside_it(name: str) -> None:
    """Where an absolute value or a norm in a formula has none of its own: first and second derivatives at z = 0, b or c = 0."""
    if name.startswith("radial"):
        pytest.skip("log det of a radial layer has a cone at its centre")
    u, w = torch.tensor([[0.7, -0.4]]).double(), torch.tensor([[0.5, 1.1]]).double()
    definition = getattr(reference, name)

    def log_det(z: Tensor) -> Tensor:
        return definition(z, u, w, z.new_zeros(1))[1]

    at, beside = torch.zeros(2).double(), torch.full((2,), 1e-7).double()
    torch.testing.assert_close(*(torch.autograd.functional.hessian(log_det, p) for p in (at, beside)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.functional.jacobian(lambda z: definition(z, u, w, z.new_zeros(1))[0], p) for p in (at, beside)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_inverse(name: str) -> None:
    z, *parameters = inputs(name, (30,), 4, 6)
    y, log_det = getattr(reference, name)(z, *parameters)
    back, inverse = getattr(reference, f"{name}_inverse")(y, *parameters)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(inverse, -log_det)


def test_an_unconstrained_layer_that_folds_has_no_log_det_at_the_fold() -> None:
    """w.u = -2: det = 0 where tanh'(a) is 1/2, which is a finite logarithm beside it and -inf or very negative at it."""
    u, w = torch.tensor([[-2.0]]).double(), torch.tensor([[1.0]]).double()
    fold = torch.tensor([[0.5**0.5]], dtype=torch.float64).atanh()
    _, log_det = reference.planar(fold, u, w, torch.zeros(1).double(), constrain=False)
    assert log_det.item() < -30
