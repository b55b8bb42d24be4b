from __future__ import annotations

import copy
import json
import math

import mpmath
import pytest
import torch

from fastgen.flows import MAF, Bounds, Composed, Permutation

INF = math.inf
DOUBLE = torch.float64
MIXED = ([0.0, -2.0, None, None], [1.0, None, 3.0, None])


def truth(x: float, low: float, high: float) -> tuple[float, float]:
    """z and log_det at 60 digits."""
    with mpmath.workdps(60):
        x, low, high = mpmath.mpf(x), mpmath.mpf(low), mpmath.mpf(high)
        if mpmath.isinf(low) and mpmath.isinf(high):
            return float(x), 0.0
        if mpmath.isinf(high):
            return float(mpmath.log(mpmath.expm1(x - low))), float(-mpmath.log(-mpmath.expm1(low - x)))
        if mpmath.isinf(low):
            return float(-mpmath.log(mpmath.expm1(high - x))), float(-mpmath.log(-mpmath.expm1(x - high)))
        a, b = x - low, high - x
        return float(mpmath.log(a / b)), float(mpmath.log((high - low) / (a * b)))


def near_the_edges(low: float, high: float, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of the dtype inside the bounds, at all distances from them."""
    steps = torch.logspace(-30 if low == 0 else -7, 2, 200, dtype=DOUBLE)
    ends = [low + steps if low > -INF else high - 50 * steps, high - steps if high < INF else low + 50 * steps]
    x = torch.cat(ends).to(dtype)
    return x[(x > low) & (x < high)]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 5.0), (1e-3, 1e5), (0.0, INF), (-3.0, INF), (-INF, 0.0), (-INF, 7.0)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_is_accurate_near_the_edges(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    transform = Bounds(*bounds).to(dtype)
    low, high = float(transform.box.low), float(transform.box.high)
    x = near_the_edges(low, high, dtype)
    z, log_det = transform(x[:, None])
    expected = torch.tensor([truth(float(v), low, high) for v in x], dtype=DOUBLE)
    eps = torch.finfo(dtype).eps
    # A few roundings of the results and of the terms that make them up, the logarithms of distance and width among them.
    width = abs(math.log(high - low)) if high - low < INF else 0.0
    for value, t, size in ((z.squeeze(-1), expected[:, 0], 1), (log_det, expected[:, 1], 1 + width)):
        assert ((value.double() - t).abs() <= 4 * eps * (size + t.abs())).all()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 5.0), (1e-3, 1e5), (0.0, INF), (-3.0, INF), (-INF, 0.0), (-INF, 7.0)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_inverse_is_accurate_and_lands_inside(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    transform = Bounds(*bounds).to(dtype)
    low, high = transform.box.low, transform.box.high
    magnitudes = torch.logspace(-3, 3, 100, dtype=dtype)
    z = torch.cat([magnitudes, -magnitudes, torch.tensor([0.0, 1e30, -1e30], dtype=dtype)])[:, None]
    x, log_det = transform.inverse(z)
    assert ((x > low) & (x < high)).all()
    again, back_log_det = transform(x)
    assert again.isfinite().all() and back_log_det.isfinite().all()
    exact, exact_log_det = copy.deepcopy(transform).double().inverse(z.double())
    eps = torch.finfo(dtype).eps
    # Roundings of the distance to the nearer bound and of the bound itself.
    size = exact.abs() + torch.where(low.isfinite(), low.abs(), 0) + torch.where(high.isfinite(), high.abs(), 0)
    assert ((x.double() - exact).abs() <= 4 * eps * size + torch.finfo(dtype).tiny * 1e5).all()
    assert ((log_det.double() - exact_log_det).abs() <= 4 * eps * (1 + exact_log_det.abs() + z.abs().squeeze(-1))).all()


def test_log_det_and_inverse_of_all_kinds_at_once(check_transform) -> None:  # type: ignore[no-untyped-def]
    x = torch.tensor([[0.2, -1.0, 2.5, 9.0], [0.9, 40.0, -8.0, -3.0], [0.5, -1.99, 0.0, 0.0]], dtype=DOUBLE)
    check_transform(Bounds(*MIXED).double(), x)
    check_transform(Bounds(0.0, None, 4).double(), x.abs() + 0.1)
    check_transform(Bounds(None, None, 4).double(), x)
    z, _ = Bounds(*MIXED).double()(x)
    assert torch.equal(z[:, 3], x[:, 3])
    # Each feature grows with its own.
    assert (torch.autograd.functional.jacobian(lambda t: Bounds(*MIXED).double()(t)[0], x[0]).diagonal() > 0).all()


@pytest.mark.parametrize("bad", [0.0, 1.0, -3.0, 2.0, INF, -INF])
def test_rows_outside_have_no_density_and_spoil_no_gradient(bad: float) -> None:
    torch.manual_seed(0)
    flow = MAF(2, transforms=2, hidden_features=(16,), preprocess=[Bounds([0.0, -1.0], [1.0, None])], dtype=DOUBLE)
    x = torch.rand(5, 2, dtype=DOUBLE)
    parameters = list(flow.parameters())
    expected = flow.log_prob(x)
    truths = torch.autograd.grad(expected[[0, 1, 3, 4]].sum(), parameters)
    spoilt = x.clone()
    spoilt[2, 0] = bad
    spoilt.requires_grad_()
    log_prob = flow.log_prob(spoilt)
    assert log_prob[2] == -INF and torch.equal(log_prob[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
    for grad, t in zip(torch.autograd.grad(log_prob[[0, 1, 3, 4]].sum(), parameters, retain_graph=True), truths, strict=True):
        torch.testing.assert_close(grad, t, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(log_prob.sum(), [spoilt, *parameters])
    assert all(grad.isfinite().all() for grad in grads)
    # One-sided bounds know infinity too.
    assert flow.log_prob(torch.tensor([[0.5, INF], [0.5, -1.0]], dtype=DOUBLE)).tolist() == [-INF, -INF]


def test_a_nan_is_a_nan() -> None:
    z, log_det = Bounds(*MIXED)(torch.tensor([[torch.nan, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]))
    assert z[0, 0].isnan() and log_det[0].isnan() and z[1].isfinite().all() and log_det[1].isfinite()


def test_a_bounded_flow_integrates_to_one_and_samples_inside() -> None:
    torch.manual_seed(0)
    flow = MAF(1, transforms=2, hidden_features=(8,), preprocess=[Bounds(2.0, 5.0)], dtype=DOUBLE)
    n = 40000
    middles = 2 + 3 * (torch.arange(n, dtype=DOUBLE)[:, None] + 0.5) / n
    # The midpoint rule on a density that dies away, smoothly, at both ends.
    assert abs(float(flow.log_prob(middles).detach().exp().sum()) * 3 / n - 1) < 1e-4
    x = flow.sample(1000)
    assert ((x > 2) & (x < 5)).all()


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 5, 4)])
def test_shapes_and_dtypes(shape: tuple[int, ...]) -> None:
    for dtype in (DOUBLE, torch.float32, torch.bfloat16, torch.float16):
        transform = Bounds(*MIXED).to(dtype)
        z = torch.randn(shape).to(dtype)
        x, log_det = transform.inverse(z)
        back, back_log_det = transform(x)
        for value, sums in ((x, log_det), (back, back_log_det)):
            assert value.shape == shape and value.dtype == dtype and sums.shape == shape[:-1]
            assert sums.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
        extreme, _ = transform.inverse(torch.tensor([[200.0, -200.0, 200.0, 0.0]], dtype=dtype))
        assert (extreme > transform.box.low).all() and (extreme < transform.box.high).all()
        assert transform(extreme)[1].isfinite().all()


def test_bounds_are_rounded_anew_in_each_dtype() -> None:
    transform = Bounds(0.1, 0.7)
    assert float(transform.box.low) == float(torch.tensor(0.1))
    assert float(transform.bfloat16().double().box.low) == 0.1


def test_config() -> None:
    transform = Bounds(*MIXED)
    config = json.loads(json.dumps(transform.config))
    assert config == {"low": [0.0, -2.0, None, None], "high": [1.0, None, 3.0, None]}
    flow = MAF(4, transforms=1, hidden_features=(8,), preprocess=[transform, Permutation.reverse(4)])
    twin = MAF(**json.loads(json.dumps(flow.config)))
    twin.load_state_dict(flow.state_dict())
    x = transform.inverse(torch.randn(5, 4))[0]
    assert torch.equal(twin.log_prob(x), flow.log_prob(x)) and twin.config == flow.config


def test_bounds_may_be_tensors_and_infinities() -> None:
    x = torch.tensor([[0.5, 0.3]])
    for low in ([-INF, 0.0], torch.tensor([-INF, 0.0]), [None, 0]):
        assert torch.equal(Bounds(low, None)(x)[0], Bounds([None, 0.0], [None, None])(x)[0])


def test_gradients() -> None:
    transform = Bounds(*MIXED).double()
    z = torch.randn(3, 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(transform.inverse, (z,)) and torch.autograd.gradgradcheck(transform.inverse, (z,))
    x = transform.inverse(z.detach())[0].requires_grad_()
    assert torch.autograd.gradcheck(transform, (x,)) and torch.autograd.gradgradcheck(transform, (x,))


def test_compiles_into_one_graph() -> None:
    transform = Composed([Bounds(*MIXED)])
    z = torch.randn(3, 4)
    x = transform.inverse(z)[0]
    for direction, argument in ((transform, x), (transform.inverse, z)):
        compiled = torch.compile(direction, fullgraph=True, backend="aot_eager")
        for value, expected in zip(compiled(argument), direction(argument), strict=True):
            torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bounds([0.0, 1.0], [1.0, 1.0]), "low: expected less than high for feature 1, found 1.0 and 1.0"),
        (lambda: Bounds(math.nan, 1.0), "low: expected less than high for feature 0, found nan"),
        (lambda: Bounds(INF, None), "low: expected less than high for feature 0, found inf and inf"),
        (lambda: Bounds([0.0, 1.0], [1.0, 2.0, 3.0]), "low: expected a number or 3 of them, found 2"),
        (lambda: Bounds(0.0, 1.0, 2)(torch.zeros(2, 3)), r"x: expected shape \(..., 2\), found \(2, 3\)"),
        (lambda: Bounds(0.0, 1.0, 2).inverse(torch.zeros(2, 3)), r"z: expected shape \(..., 2\), found \(2, 3\)"),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()
    with pytest.raises(TypeError, match="x: expected a floating dtype"):
        Bounds(0.0, 1.0)(torch.zeros(2, 1, dtype=torch.int64))
