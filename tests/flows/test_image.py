from __future__ import annotations

import pytest
import torch

from fastgen.flows import Composed, Dequantize, Inverse, Logit, Unflatten, UnitInterval

SHAPE = (2, 3, 4)


@pytest.mark.parametrize("batch", [(), (0,), (5,), (2, 3)])
def test_rows_become_images_and_back(batch: tuple[int, ...]) -> None:
    transform = Unflatten(SHAPE)
    x = torch.randn(*batch, 24)
    z, log_det = transform(x)
    assert z.shape == (*batch, *SHAPE) and torch.equal(z.reshape(x.shape), x)
    assert torch.equal(log_det, torch.zeros(batch))
    back, back_log_det = transform.inverse(z)
    assert torch.equal(back, x) and torch.equal(back_log_det, log_det)
    given = torch.randn(batch)
    for found in (transform(x, log_det=given)[1], transform.inverse(z, log_det=given)[1]):
        assert torch.equal(found, given)
    channels_last = torch.randn(3, *SHAPE).to(memory_format=torch.channels_last)
    assert torch.equal(transform.inverse(channels_last)[0], channels_last.contiguous().flatten(1))


def test_log_det_is_zero(check_transform) -> None:  # type: ignore[no-untyped-def]
    both = Composed([Unflatten(SHAPE), Inverse(Unflatten(**Unflatten(SHAPE).config))])
    check_transform(both, torch.randn(2, 24, dtype=torch.float64))


def test_dequantize_adds_noise_that_its_inverse_takes_away() -> None:
    levels = torch.randint(0, 16, (1000, 2), generator=torch.Generator().manual_seed(0)).float()
    transform = Dequantize(16)
    torch.manual_seed(1)
    z, log_det = transform(levels)
    torch.manual_seed(1)
    assert torch.equal(transform(levels)[0], z)
    assert torch.equal(log_det, torch.zeros(1000)) and torch.equal(transform(levels, log_det=log_det + 2)[1], log_det + 2)
    noise = z - levels
    # 2000 numbers: the mean of U[0, 1) has the standard error 0.0065.
    assert noise.min() >= 0 and noise.max() < 1 and abs(noise.mean() - 0.5) < 0.03
    back, _ = transform.inverse(z)
    assert torch.equal(back, levels)
    assert transform(levels.int())[0].dtype == torch.float32


def test_what_leaves_the_levels_goes_to_the_nearest() -> None:
    z = torch.tensor([[-0.3, 0.0, 15.99, 16.0, 20.0]])
    assert torch.equal(Dequantize(16).inverse(z)[0], torch.tensor([[0.0, 0.0, 15.0, 15.0, 15.0]]))
    chain = Composed([Dequantize(16), UnitInterval(16), Logit(0.05)])
    drawn, _ = chain.inverse(5 * torch.randn(100, 3))
    assert torch.equal(drawn, drawn.round()) and drawn.min() >= 0 and drawn.max() <= 15


def test_noise_has_no_exact_inverse() -> None:
    assert not Dequantize().exact_inverse and Unflatten(SHAPE).exact_inverse


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Unflatten((2, 3)), r"shape: expected \(C, H, W\) of at least 1 each, found \(2, 3\)"),
        (lambda: Unflatten((2, 0, 3)), r"shape: expected \(C, H, W\) of at least 1 each, found \(2, 0, 3\)"),
        (lambda: Unflatten(SHAPE)(torch.zeros(2, 23)), r"x: expected shape \(..., 24\), found \(2, 23\)"),
        (
            lambda: Unflatten(SHAPE).inverse(torch.zeros(2, 2, 2, 4)),
            r"z: expected shape \(..., 2, 3, 4\), found \(2, 2, 2, 4\)",
        ),
        (lambda: Unflatten(SHAPE).inverse(torch.zeros(2, 24)), r"z: expected shape \(..., 2, 3, 4\), found \(2, 24\)"),
        (lambda: Dequantize(1), "levels: expected at least 2, found 1"),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()
