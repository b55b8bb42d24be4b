from __future__ import annotations

import copy

import pytest
import torch

from fastgen.flows import Scaling

DOUBLE = torch.float64


@pytest.mark.parametrize("features", [1, 4])
def test_log_det_and_inverse(features: int, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    check_transform(randomised(Scaling(features, shift=True)), torch.randn(3, features, dtype=DOUBLE))
    check_transform(randomised(Scaling(features)), torch.randn(3, features, dtype=DOUBLE))


def test_it_starts_as_the_identity_and_is_its_formula(randomised) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(3, 4)
    z, log_det = Scaling(4)(x)
    assert torch.equal(z, x) and torch.equal(log_det, torch.zeros(3))
    scaling = randomised(Scaling(4))
    z, log_det = scaling(x.double())
    torch.testing.assert_close(z, x.double() * scaling.log_scale.exp())
    torch.testing.assert_close(log_det, scaling.log_scale.sum().expand(3))


def test_gradients(randomised) -> None:  # type: ignore[no-untyped-def]
    scaling = randomised(Scaling(3))
    x = torch.randn(2, 3, dtype=DOUBLE, requires_grad=True)
    for run in (scaling, scaling.inverse):
        assert torch.autograd.gradcheck(lambda x, _: run(x), (x, scaling.log_scale))  # noqa: B023


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 5, 3)])
def test_shapes_and_dtypes(shape: tuple[int, ...]) -> None:
    for dtype in (DOUBLE, torch.float32, torch.bfloat16):
        z, log_det = Scaling(3, dtype=dtype)(torch.randn(shape).to(dtype))
        assert z.shape == shape and z.dtype == dtype
        assert log_det.shape == shape[:-1] and log_det.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)


def test_copies(randomised) -> None:  # type: ignore[no-untyped-def]
    scaling = randomised(Scaling(3))
    twin = Scaling(**scaling.config).double()
    twin.load_state_dict(scaling.state_dict())
    x = torch.randn(2, 3, dtype=DOUBLE)
    assert torch.equal(twin(x)[0], scaling(x)[0]) and torch.equal(copy.deepcopy(scaling)(x)[0], scaling(x)[0])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="features: expected at least 1, found 0"):
        Scaling(0)
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 2\), found \(1, 3\)"):
        Scaling(2)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"z: expected shape \(..., 2\), found \(1, 3\)"):
        Scaling(2).inverse(torch.zeros(1, 3))
