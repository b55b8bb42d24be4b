"""affine_autoregressive and gaussian_log_prob on Triton kernels."""

from __future__ import annotations

import pytest
import torch
from compare import RUNS_KERNELS, assert_matches, padded
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import ScaleMap

pytestmark = RUNS_KERNELS

MAPS = (
    ScaleMap(),
    ScaleMap("softplus"),
    ScaleMap("softplus", eps=1e-3),
    ScaleMap("sigmoid"),
    ScaleMap("sigmoid", eps=1e-3),
    ScaleMap("soft_clip", c=6.9),
    ScaleMap("tanh", c=2.0),
    ScaleMap("clamp", lo=-0.5, hi=0.75),
    ScaleMap("clamp_straight", lo=-0.5, hi=0.75),
)


def _inputs(device: str, batch: int, features: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x, and shift and log_scale as a network puts them out: interleaved."""
    torch.manual_seed(0)
    x, o = torch.randn(batch, features), torch.randn(batch, features, 2)
    # The clamps' edges.
    edges = torch.tensor([-0.5, 0.75, 0.0])
    o[:1, :3, 1] = edges[:features]
    o = o.to(device, dtype)
    return x.to(device, dtype), o[..., 0], o[..., 1]


@pytest.mark.parametrize("scale_map", MAPS, ids=lambda m: f"{m.kind}{m.eps or ''}")
@pytest.mark.parametrize("inverse", [False, True])
def test_affine_autoregressive(device: str, inverse: bool, scale_map: ScaleMap) -> None:
    def call(module):  # type: ignore[no-untyped-def]
        return lambda x, t, a: module.affine_autoregressive(x, t, a, inverse=inverse, scale_map=scale_map)

    assert_matches(call(ops), call(reference), _inputs(device, 120, 13))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inverse", [False, True])
def test_affine_autoregressive_in_other_dtypes(device: str, inverse: bool, dtype: torch.dtype) -> None:
    def call(module):  # type: ignore[no-untyped-def]
        return lambda x, t, a: module.affine_autoregressive(x, t, a, inverse=inverse, scale_map=ScaleMap("soft_clip", c=6.9))

    assert_matches(call(ops), call(reference), _inputs(device, 120, 13, dtype))


# 1100 features are more than one block of columns.
@pytest.mark.parametrize(("batch", "features"), [(0, 3), (1, 1), (5, 1), (300, 2), (3, 1100)])
def test_shapes(device: str, batch: int, features: int) -> None:
    inputs = _inputs(device, batch, features)
    assert_matches(ops.affine_autoregressive, reference.affine_autoregressive, inputs)

    def log_prob(module):  # type: ignore[no-untyped-def]
        return lambda x, m, s: module.gaussian_log_prob(x, m, s)

    assert_matches(log_prob(ops), log_prob(reference), inputs)


def test_strides(device: str) -> None:
    """Apart, padded, transposed and expanded inputs."""
    x, t, a = _inputs(device, 20, 7)
    for inputs in (
        (padded(x), padded(t), padded(a)),
        (x.T.contiguous().T, t.contiguous(), a.T.contiguous().T),
        (x, t[:1].expand(20, 7), a[:, :1].expand(20, 7)),
        (x[:1].expand(20, 7), a, t),
    ):
        with backends.use("triton"):
            z, log_det = ops.affine_autoregressive(*inputs)
            log_prob = ops.gaussian_log_prob(*inputs)
        expected_z, expected_log_det = reference.affine_autoregressive(*(i.double() for i in inputs))
        # A few roundings of float32 in z, a sum of seven terms of order 10 in log_prob.
        torch.testing.assert_close(z.double(), expected_z, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_det.double(), expected_log_det, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(
            log_prob.double(), reference.gaussian_log_prob(*(i.double() for i in inputs)), rtol=1e-6, atol=1e-5
        )


def test_log_det_is_added_and_only_read(device: str) -> None:
    x, t, a = _inputs(device, 6, 4)
    log_det = torch.randn(12, device=device)[::2]
    before = log_det.clone()
    with backends.use("triton"):
        _, without = ops.affine_autoregressive(x, t, a)
        _, total = ops.affine_autoregressive(x, t, a, log_det=log_det)
    assert torch.equal(log_det, before)
    assert torch.equal(total, log_det + without)


def test_one_incoming_gradient(device: str) -> None:
    """Of z or of log_det alone, also expanded: `sum` hands on a gradient of strides 0."""
    inputs = [t.clone().requires_grad_() for t in _inputs(device, 5, 3)]
    for output in (0, 1):
        with backends.use("triton"):
            found = torch.autograd.grad(ops.affine_autoregressive(*inputs)[output].sum(), inputs, allow_unused=True)
        expected = torch.autograd.grad(reference.affine_autoregressive(*inputs)[output].sum(), inputs, allow_unused=True)
        for f, e in zip(found, expected, strict=True):
            f = torch.zeros(5, 3, device=device) if f is None else f
            torch.testing.assert_close(f, torch.zeros_like(f) if e is None else e)


@pytest.mark.parametrize(
    ("given", "scale_map"),
    [
        *((("mean", "log_scale"), scale_map) for scale_map in MAPS),
        *((given, MAPS[1]) for given in ((), ("mean",), ("log_scale",))),
    ],
)
def test_gaussian_log_prob(device: str, given: tuple[str, ...], scale_map: ScaleMap) -> None:
    def call(module):  # type: ignore[no-untyped-def]
        return lambda x, *rest: module.gaussian_log_prob(x, **dict(zip(given, rest, strict=True)), scale_map=scale_map)

    x, mean, log_scale = _inputs(device, 120, 13)
    inputs = (x, *({"mean": mean, "log_scale": log_scale}[name] for name in given))
    assert_matches(call(ops), call(reference), inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_gaussian_log_prob_in_other_dtypes(device: str, dtype: torch.dtype) -> None:
    assert_matches(ops.gaussian_log_prob, reference.gaussian_log_prob, _inputs(device, 120, 13, dtype))


def test_a_nan_stays_in_its_row(device: str) -> None:
    x, t, a = _inputs(device, 9, 5)
    broken = x.clone()
    broken[4, 2], broken[6, 0] = torch.nan, torch.inf
    with backends.use("triton"):
        z, _ = ops.affine_autoregressive(broken, t, a)
        log_prob = ops.gaussian_log_prob(broken, t, a)
        clean_z, clean = ops.affine_autoregressive(x, t, a)[0], ops.gaussian_log_prob(x, t, a)
    rest = [i for i in range(9) if i not in (4, 6)]
    assert not z[4, 2].isfinite() and not z[6, 0].isfinite() and not log_prob[[4, 6]].isfinite().any()
    assert torch.equal(z[rest], clean_z[rest]) and torch.equal(log_prob[rest], clean[rest])


@pytest.mark.parametrize("scale_map", MAPS[1:])
def test_scale_maps_far_out(device: str, scale_map: ScaleMap) -> None:
    """Raw outputs where a map saturates or its terms underflow: the map and its derivative, one feature a row."""
    a = torch.tensor([-200.0, -100.0, -20.0, -17.9, 17.9, 20.0, 90.0], device=device)[:, None].requires_grad_()
    exact = a.detach().double().requires_grad_()
    zero = torch.zeros_like(a)
    with backends.use("triton"):
        _, found = ops.affine_autoregressive(zero, zero, a, scale_map=scale_map)
    (slope,) = torch.autograd.grad(found.sum(), a)
    expected = -scale_map(exact)[:, 0]
    (expected_slope,) = torch.autograd.grad(expected.sum(), exact)
    # A few units in the last place; what float32 cannot hold apart from 0 or 1 may be lost.
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(slope.double(), expected_slope, rtol=1e-6, atol=1e-7)
