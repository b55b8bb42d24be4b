from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from fastgen.flows import Composed, Inverse, Logit, Permutation, Standardise, Transform, UnitInterval, dequantize


class Doubled(Transform):
    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own = torch.full(x.shape[:-1], x.shape[-1] * math.log(2), dtype=x.dtype)
        return 2 * x, own if log_det is None else log_det + own

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        own = torch.full(z.shape[:-1], -z.shape[-1] * math.log(2), dtype=z.dtype)
        return z / 2, own if log_det is None else log_det + own


def transforms() -> list[Transform]:
    data = torch.rand(50, 3, dtype=torch.float64)
    return [
        Permutation([2, 0, 1]),
        Permutation.reverse(3),
        Permutation.random(3),
        Standardise.fit(data),
        Logit(0.01),
        Logit(0.0),
        UnitInterval(17),
        Inverse(Standardise.fit(data)),
        Composed([UnitInterval(2), Logit(), Permutation.reverse(3)]),
        Composed([Doubled(), Inverse(Doubled()), UnitInterval(2)]),
    ]


@pytest.mark.parametrize("transform", transforms(), ids=lambda t: type(t).__name__)
def test_log_det_and_inverse(transform: Transform, check_transform) -> None:  # type: ignore[no-untyped-def]
    check_transform(transform, torch.rand(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("transform", transforms(), ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 5, 3)])
def test_shapes_and_dtypes(transform: Transform, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.rand(shape, dtype=torch.float64).to(dtype)
        if Doubled in {type(t) for t in transform.modules()} and dtype == torch.bfloat16:
            continue
        z, log_det = copy.deepcopy(transform).to(dtype)(x)
        assert z.shape == shape and z.dtype == dtype
        assert log_det.shape == shape[:-1] and log_det.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_compositions_are_flat() -> None:
    inner = Composed([Logit(), UnitInterval(4)])
    outer = Composed([Permutation.reverse(2), inner, Doubled()])
    assert [type(t) for t in outer] == [Permutation, Logit, UnitInterval, Doubled]
    assert len(outer) == 4 and outer[1] is inner[0]


def test_compositions_reject_what_is_no_transform() -> None:
    with pytest.raises(TypeError, match=r"transforms\[1\]: expected a Transform, found Linear"):
        Composed([Logit(), torch.nn.Linear(2, 2)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="transforms: expected at least one, found none"):
        Composed([])


def test_standardise_gives_mean_0_and_deviation_1_and_leaves_constants_their_scale() -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 3) * torch.tensor([1e-3, 7.0, 0.0]) + torch.tensor([5.0, -2.0, 0.1])
    fitted = Standardise.fit(x)
    assert fitted.std[2] == 1
    z, log_det = fitted(x)
    # float32 data of mean 5 and deviation 1e-3 carry three digits of their deviation.
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_det, -fitted.std.log().sum().expand(100))


def test_standardise_keeps_its_numbers_in_the_state_dict() -> None:
    fitted = Standardise.fit(torch.randn(9, 2))
    loaded = Standardise(**fitted.config)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded.mean, fitted.mean) and torch.equal(loaded.std, fitted.std)


@pytest.mark.parametrize("x", [torch.zeros(0, 2), torch.tensor([[1.0, torch.nan]]), torch.tensor([[torch.inf]])])
def test_standardise_rejects_data_that_has_no_mean(x: Tensor) -> None:
    with pytest.raises(ValueError, match="x: expected at least one row of finite values"):
        Standardise.fit(x)


def test_logit_is_finite_and_exact_at_the_edges() -> None:
    z, log_det = Logit(1e-6)(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    truth = math.log(1e-6) - math.log1p(-1e-6)
    torch.testing.assert_close(z, torch.tensor([[truth], [-truth]], dtype=torch.float64), rtol=1e-12, atol=0)
    own = math.log1p(-2e-6) - math.log(1e-6) - math.log1p(-1e-6)
    torch.testing.assert_close(log_det, torch.tensor([own, own], dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_logit_in_float32_loses_nothing_near_the_edges(near: float) -> None:
    x = (near - torch.logspace(-7, -1, 60)).abs().view(-1, 1)
    z, log_det = Logit(1e-6)(x)
    truth, truth_log_det = Logit(1e-6)(x.double())
    # A few roundings, of numbers up to 14.
    assert (z - truth).abs().max() < 14 * 4 * torch.finfo(torch.float32).eps
    assert (log_det - truth_log_det).abs().max() < 14 * 4 * torch.finfo(torch.float32).eps


def test_grey_levels_have_a_density_per_grey_level() -> None:
    uniform = UnitInterval(16)
    _, log_det = uniform(torch.rand(5, 8) * 16)
    # The uniform density over the cube of grey levels is 16^-8.
    torch.testing.assert_close(log_det.exp(), torch.full((5,), 16.0**-8), rtol=1e-5, atol=0)


def test_dequantize_adds_noise_of_its_generator() -> None:
    pixels = torch.arange(17).expand(1000, 17)
    noisy = dequantize(pixels, torch.Generator().manual_seed(3))
    assert noisy.dtype == torch.float32 and torch.equal(noisy.floor(), pixels.float())
    assert torch.equal(noisy, dequantize(pixels, torch.Generator().manual_seed(3)))
    noise = noisy - pixels
    # The mean of 17000 uniform numbers has a standard deviation of 0.0022, their variance one of 0.0006.
    assert abs(noise.mean() - 0.5) < 0.01 and abs(noise.var() - 1 / 12) < 0.003
    assert dequantize(pixels.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dequantized_levels_stay_below_the_next(dtype: torch.dtype) -> None:
    # At 255 a float32 leaves 2^-16 of a level for the noise: one draw in 2^17 would round up.
    pixels = torch.full((500_000,), 255, dtype=dtype)
    noisy = dequantize(pixels, torch.Generator().manual_seed(0))
    assert noisy.dtype == dtype and noisy.min() >= 255 and noisy.max() < 256


def test_permutations_are_in_the_state_dict() -> None:
    permutation = Permutation.random(9, torch.Generator().manual_seed(1))
    loaded = Permutation.reverse(9)
    loaded.load_state_dict(permutation.state_dict())
    x = torch.randn(2, 9)
    assert torch.equal(loaded(x)[0], permutation(x)[0])
    assert torch.equal(Permutation(**permutation.config)(x)[0], permutation(x)[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Permutation([0, 2]), r"order: expected a permutation of 0..D-1, found \[0, 2\]"),
        (lambda: Permutation([]), "order: expected a permutation of 0..D-1"),
        (lambda: Standardise(0), "features: expected at least 1, found 0"),
        (lambda: Logit(0.5), r"alpha: expected a number in \[0, 0.5\), found 0.5"),
        (lambda: Logit(math.nan), "alpha: expected a number"),
        (lambda: UnitInterval(1), "levels: expected at least 2, found 1"),
        (lambda: Standardise(3)(torch.zeros(2, 1)), r"x: expected shape \(..., 3\), found \(2, 1\)"),
        (lambda: Permutation.reverse(3).inverse(torch.zeros(2, 4)), r"z: expected shape \(..., 3\), found \(2, 4\)"),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()
