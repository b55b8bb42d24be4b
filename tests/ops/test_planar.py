from __future__ import annotations

import pytest
import torch
from layers import inputs, results
from torch import Tensor

from fastgen import ops, reference

pytestmark = pytest.mark.usefixtures("cpu_backend")

both_kinds = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per_row"])


def _one_layer(along: float, length: float, features: int, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """u, w and b of one layer in float32 with w.u = along and |w| = length."""
    generator = torch.Generator().manual_seed(int(along * 10) % 1000 + features)
    w = torch.randn(1, features, generator=generator, dtype=torch.float64)
    w = length * w / w.norm()
    u = torch.randn(1, features, generator=generator, dtype=torch.float64)
    if length:
        u = u + (along - (w * u).sum()) * w / length**2
    b = torch.randn(1, generator=generator, dtype=torch.float64)
    tensors = [t.float() for t in (u, w, b)]
    u, w, b = tensors if shared else [t.expand(4000, *t.shape).contiguous() for t in tensors]
    return u, w, b


@both_kinds
@pytest.mark.parametrize("along", [-50.0, -15.0, -5.0, -1.0, 0.0, 0.5, 5.0, 30.0, 100.0])
@pytest.mark.parametrize("features", [1, 6])
def test_the_inverse_keeps_its_promise(cpu_variant: str, shared: bool, along: float, features: int) -> None:
    """One layer: |f(inverse(y)) - y| <= 4 eps s (|y| + |u_hat| + |b|), the error of z that divided by det there."""
    u, w, b = _one_layer(along, 1.0, features, shared)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(4000, features, generator=generator) * 10.0 ** torch.linspace(-6, 3, 4000)[:, None]
    z, _ = ops.planar_inverse(y, u, w, b)
    # The u_hat of float32: what is added to 0 where tanh is 1.
    direction = ops.planar(torch.zeros_like(y), u, w, torch.full_like(b, 50.0))[0].double()
    weight, bias = w.double().squeeze(-2), b.double().squeeze(-1)
    a = (weight * z.double()).sum(-1) + bias
    back = z.double() + direction * a.tanh()[..., None]
    scale = 1 + direction.norm(dim=-1) * weight.norm(dim=-1)
    eps = torch.finfo(torch.float32).eps / 2
    bound = 4 * eps * scale * (y.double().norm(dim=-1) + direction.norm(dim=-1) + bias.abs())
    assert ((back - y.double()).norm(dim=-1) <= bound).all()
    exact, exact_log_det = reference.planar_inverse(*(t.double() for t in (y, u, w, b)))
    det = (-exact_log_det).exp()
    # Also of the float32 direction itself: twice.
    assert ((z.double() - exact).norm(dim=-1) * det <= 2 * bound).all()


@both_kinds
def test_where_w_is_0_u_hat_is_u(cpu_variant: str, shared: bool) -> None:
    u, w, b = _one_layer(0.0, 0.0, 3, shared)
    z = torch.randn(4000, 3)
    y, log_det = ops.planar(z, u, w, b)
    torch.testing.assert_close(y, z + (u * b.tanh()[..., None]).reshape(-1, 3))
    assert not log_det.any()
    back, inverse = ops.planar_inverse(y, u, w, b)
    torch.testing.assert_close(back, z, rtol=1e-6, atol=1e-6)
    assert not inverse.any()
    given, expected = (results(m.planar, (z[:7], *(t if shared else t[:7] for t in (u, w, b)))) for m in (ops, reference))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@both_kinds
@pytest.mark.parametrize("along", [-300.0, -120.0, -90.0, 90.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_stretches_are_those_of_the_reference(cpu_variant: str, shared: bool, along: float, dtype: torch.dtype) -> None:
    """w = 1, b = 0: z is what tanh is taken of, from 0 past where a det underflows to where tanh is 1."""
    z = torch.tensor([0.0, 1e-30, 1e-20, 1e-18, 1e-10, 1e-3, 1.0, 5.0, 40.0, -1e-25, -2.0], dtype=dtype)[:, None]
    u, w, b = torch.full((1, 1), along, dtype=dtype), torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
    if not shared:
        u, w, b = (t.expand(len(z), *t.shape).contiguous() for t in (u, w, b))
    truth = reference.planar(*(t.double() for t in (z, u, w, b)))
    given = ops.planar(z, u, w, b)
    # u_hat is -1 to a digit of float32 where w.u is large and negative; a log det is one of numbers with a few roundings.
    tolerance = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(given[1].double(), truth[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(given[0].double(), truth[0], rtol=tolerance, atol=tolerance * abs(along))
    leaves = [t.clone().requires_grad_() for t in (z, u, w, b)]
    (found,) = torch.autograd.grad(ops.planar(*leaves)[1].sum(), leaves[0])
    leaves = [t.double().requires_grad_() for t in (z, u, w, b)]
    (expected,) = torch.autograd.grad(reference.planar(*leaves)[1].sum(), leaves[0])
    # Automatic derivatives of tanh end in 1 - tanh^2, which leaves an error of float64 of its own.
    torch.testing.assert_close(found.double(), expected, rtol=64 * torch.finfo(dtype).eps, atol=1e-14)


@both_kinds
def test_unconstrained(cpu_variant: str, shared: bool) -> None:
    z, u, w, b = inputs("planar", (50,), 4, 5, shared=shared)
    u = 3 * u
    for given, expected in zip(*(results(m.planar, (z, u, w, b), constrain=False) for m in (ops, reference)), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))


@both_kinds
def test_an_unconstrained_layer_without_an_inverse_gives_nan(cpu_variant: str, shared: bool) -> None:
    u, w, b = _one_layer(-1.5, 1.0, 3, shared)
    z, log_det = ops.planar_inverse(torch.randn(4000, 3), u, w, b, constrain=False)
    assert z.isnan().all() and log_det.isnan().all()
    u, w, b = _one_layer(-0.5, 1.0, 3, shared)
    z = torch.randn(4000, 3)
    back, _ = ops.planar_inverse(ops.planar(z, u, w, b, constrain=False)[0], u, w, b, constrain=False)
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)


def test_infinite_parameters_reach_every_row_and_only_their_own(cpu_variant: str) -> None:
    z, u, w, b = inputs("planar", (40,), 4, 3, shared=False, dtype=torch.float32)
    clean = ops.planar(z, u, w, b)
    w[7, 1, 2] = torch.nan
    dirty = ops.planar(z, u, w, b)
    others = torch.arange(40) != 7
    assert all(torch.equal(d[others], c[others]) for d, c in zip(dirty, clean, strict=True))
    assert dirty[0][7].isnan().all() and dirty[1][7].isnan()
