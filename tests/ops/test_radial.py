from __future__ import annotations

import pytest
import torch
from layers import inputs
from support import rms_error

from fastgen import ops, reference

pytestmark = pytest.mark.usefixtures("cpu_backend")

both_kinds = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_row"])


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_radii_and_sizes_are_those_of_the_reference(cpu_variant: str, shared: bool, dtype: torch.dtype) -> None:
    z = torch.tensor([0.0, 1e-15, 1e-6, 0.1, 3.0, 1e3, 1e9], dtype=dtype)[:, None].expand(7, 3).contiguous()
    for log_alpha in (-30.0, -5.0, 0.0, 20.0):
        for raw_beta in (-40.0, -3.0, 2.0, 50.0):
            numbers = torch.tensor([log_alpha], dtype=dtype), torch.tensor([raw_beta], dtype=dtype)
            parameters = [torch.zeros(1, 3, dtype=dtype), *numbers]
            if not shared:
                parameters = [t.expand(7, *t.shape).contiguous() for t in parameters]
            for name in ("radial", "radial_inverse"):
                truth = getattr(reference, name)(z.double(), *(p.double() for p in parameters))
                given = getattr(ops, name)(z, *parameters)
                # e^20 and softplus carry a relative error of a few units, which a logarithm adds up.
                tolerance = 64 * torch.finfo(dtype).eps
                torch.testing.assert_close(given[0].double(), truth[0], rtol=tolerance, atol=0)
                torch.testing.assert_close(given[1].double(), truth[1], rtol=tolerance, atol=tolerance)


@both_kinds
def test_at_the_centre(cpu_variant: str, shared: bool) -> None:
    _, centre, log_alpha, raw_beta = inputs("radial", (1,), 4, 1)
    z = centre.clone().requires_grad_()
    parameters = [centre, log_alpha, raw_beta] if shared else [t[None] for t in (centre, log_alpha, raw_beta)]
    for name in ("radial", "radial_inverse"):
        out, log_det = getattr(ops, name)(z, *parameters)
        assert torch.equal(out, centre)
        ratio = torch.nn.functional.softplus(raw_beta) / log_alpha.exp()
        ratio = 1 / ratio if name == "radial_inverse" else ratio
        torch.testing.assert_close(log_det, 4 * ratio.log())
        (grad,) = torch.autograd.grad(out.sum(), z)
        torch.testing.assert_close(grad, ratio.expand(1, 4))


@both_kinds
def test_the_inverse_of_float32_is_accurate(cpu_variant: str, shared: bool) -> None:
    z, *parameters = inputs("radial", (500,), 8, 6, shared=shared, dtype=torch.float32)
    y, _ = ops.radial(z, *parameters)
    truth = reference.radial_inverse(y.double(), *(p.double() for p in parameters))[0]
    plain = reference.radial_inverse(y, *parameters)[0]
    assert rms_error(ops.radial_inverse(y, *parameters)[0], truth) <= 2 * rms_error(plain, truth)
