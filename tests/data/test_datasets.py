from __future__ import annotations

import math

import numpy as np
import pytest

from fastgen import data
from fastgen.data import Dataset, Part, patches
from fastgen.data.dataset import cuts, dequantize
from fastgen.data.patches import BANDS, EDGE, band_patches, prepare, split_bands

SHAPES = {
    "digits": ((1258, 64), (180, 64), (359, 64)),
    "patches": ((73500, 63), (10500, 63), (21000, 63)),
    **{toy: ((14000, 2), (2000, 2), (4000, 2)) for toy in ("moons", "rings", "spirals", "pinwheel")},
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_determinism(name):
    one, again, other = data.load(name, seed=3), data.load(name, seed=3), data.load(name, seed=4)
    assert tuple(part.rows.shape for part in (one.train, one.valid, one.test)) == SHAPES[name]
    assert one.features == SHAPES[name][0][1] and one.name == name and one.seed == 3
    for part in ("train", "valid", "test"):
        assert getattr(one, part).dtype == np.float32
        assert np.array_equal(getattr(one, part).rows, getattr(again, part).rows)
        assert not np.array_equal(getattr(one, part).rows, getattr(other, part).rows)


def test_an_unknown_name():
    with pytest.raises(
        data.DataError, match=r"data: expected a file or one of digits, patches.*found 'digit'; did you mean 'digits'"
    ):
        data.load("digit")
    with pytest.raises(data.DataError, match="digits: expected no options but labels, found levels"):
        data.load("digits", levels=2)


def test_digits_are_split_without_overlap_and_keep_their_pixels():
    from sklearn.datasets import load_digits

    digits = data.digits(seed=1)
    pixels = np.concatenate([part.rows for part in (digits.train, digits.valid, digits.test)])
    assert sorted(map(tuple, pixels)) == sorted(map(tuple, load_digits().data))
    assert digits.levels == 17


def _epoch(digits, number, seed=0):
    return np.concatenate([window.read().rows for window in digits.epoch(number, 256, seed)])


def _held_out(digits, part):
    return np.concatenate([piece.rows for piece in digits.held_out(part)])


def test_an_epoch_of_digits_has_noise_and_an_order_that_its_number_and_the_seed_rule():
    digits = data.digits()
    one = _epoch(digits, 1)
    assert np.array_equal(one, _epoch(digits, 1))
    assert not np.array_equal(one, _epoch(digits, 2)) and not np.array_equal(one, _epoch(digits, 1, seed=1))
    assert sorted(map(tuple, np.floor(one))) == sorted(map(tuple, digits.train.rows))
    noise = one - np.floor(one)
    # Uniform on [0, 1): the standard error of its mean over 80 thousand draws is 0.001.
    assert abs(noise.mean() - 0.5) < 0.005 and abs(noise.var() - 1 / 12) < 0.002


def test_held_out_noise_is_the_same_every_time_and_other_in_each_part():
    digits = data.digits()
    one = _held_out(digits, "test")
    assert np.array_equal(np.floor(one), digits.test.rows) and not np.array_equal(one, digits.test.rows)
    assert np.array_equal(one, _held_out(digits, "test"))
    assert not np.array_equal((one - np.floor(one))[:180], _held_out(digits, "valid") % 1)


def test_discrete_digits_have_no_noise():
    digits = data.digits().discrete()
    assert digits.levels == 17
    assert np.array_equal(_held_out(digits, "test"), digits.test.rows)
    assert np.array_equal(_epoch(digits, 1), np.floor(_epoch(digits, 1)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dequantized_levels_never_round_up_to_the_next(dtype):
    class Highest:
        def random(self, shape, dtype):
            return np.full(shape, np.nextafter(dtype(1), dtype(0)))

    noisy = dequantize(np.arange(256, dtype=dtype), Highest())
    assert noisy.dtype == dtype and np.array_equal(np.floor(noisy), np.arange(256))


def test_patches_of_different_parts_share_no_pixel_of_a_photograph():
    # Every pixel holds its own column, so that patches tell where they are from.
    columns = np.broadcast_to(np.arange(640.0), (64, 640))
    train, valid, test = split_bands(np.random.default_rng(0))
    assert sorted(train + valid + test) == list(range(BANDS))
    seen = [{int(c) for band in bands for c in band_patches(columns, band).ravel()} for bands in (train, valid, test)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # Not even neighbours: a gap of a patch's width lies between two bands.
        assert min(abs(a - b) for a in seen[one] for b in seen[other]) > EDGE


def test_patches_are_prepared_as_bsds300_is():
    pixels = np.random.default_rng(0).uniform(0, 256, (5, 64)).astype(np.float32)
    rows = prepare(pixels)
    expected = pixels / 256 - (pixels / 256).mean(axis=1, keepdims=True)
    assert rows.shape == (5, 63)
    np.testing.assert_allclose(rows, expected[:, :63], atol=1e-6)
    # The dropped pixel follows from the others.
    shipped = Dataset("patches", 0, Part(rows), Part(rows), Part(rows), image_shape=(8, 8))
    np.testing.assert_allclose(shipped.images(rows).reshape(5, 64), expected, atol=1e-6)


def test_patches_have_no_mean_left_and_vary_everywhere():
    shipped = patches()
    images = shipped.images(shipped.test.rows)
    assert images.shape == (21000, 8, 8)
    assert np.abs(images.mean(axis=(1, 2))).max() < 1e-6
    assert np.abs(images).max() <= 1 and shipped.train.rows.std(axis=0).min() > 0.01


def test_bits_per_dim():
    # A uniform density over 256 grey levels costs 8 bits, whatever the units of the rows.
    assert data.digits().bits_per_dim(-math.log(256)) == pytest.approx(8)
    assert patches().bits_per_dim(0.0) == pytest.approx(8)
    assert data.moons().bits_per_dim(0.0) is None


def test_sets_that_are_no_images_have_none():
    with pytest.raises(ValueError, match="data: expected a set of images, found moons"):
        data.moons().images(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("rows", [10, 101])
def test_cuts_cover_every_row_once(rows):
    parts = cuts(rows, 0)
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert [len(p) for p in parts[1:]] == [round(rows * 0.1), round(rows * 0.2)]


@pytest.mark.parametrize("name", ["moons", "rings", "spirals", "pinwheel"])
def test_toys_take_a_size(name):
    toy = data.DATASETS[name](size=10)
    assert len(toy.train) + len(toy.valid) + len(toy.test) == 10
    with pytest.raises(ValueError, match="size: expected at least 10 points, found 9"):
        data.DATASETS[name](size=9)


def test_toys_look_as_described():
    rings = data.rings().train.rows
    radius = np.linalg.norm(rings, axis=1)
    assert np.abs(radius - np.rint(radius).clip(1, 4)).max() < 0.6
    upper, lower = data.moons().train.rows.max(axis=0)[1], data.moons().train.rows.min(axis=0)[1]
    assert 1.1 < upper < 1.7 and -1.2 < lower < -0.6
    spirals = data.spirals().train.rows
    assert np.linalg.norm(spirals, axis=1).max() < 3.7
    # Both arms: the set is symmetric about the origin. The standard error of the mean is 0.011.
    assert np.abs(spirals.mean(axis=0)).max() < 0.06


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Part(np.zeros((3, 1), np.float32)), "valid: expected features 2 as train has, found 1"),
        (Part(np.zeros((3, 2))), "valid: expected dtype float32 as train has, found float64"),
        (Part(np.zeros((3, 2), np.float32), np.ones((3, 1), np.float32)), "valid: expected context_features 0"),
        (Part(np.zeros((3, 2), np.float32), weight=np.ones(3, np.float32)), "valid: expected weighted False"),
    ],
)
def test_parts_that_differ_are_named(other, message):
    part = Part(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=message):
        Dataset("bad", 0, part, other, part)


def test_binarised_levels_are_ones_as_often_as_they_are_bright():
    digits = data.digits()
    black_and_white = digits.binarised()
    assert black_and_white.levels == 2 and black_and_white.grey_level is None and black_and_white.binarised().grey_levels == 17
    one, other = _epoch(black_and_white, 1), _epoch(black_and_white, 2)
    assert set(np.unique(one)) == {0, 1} and not np.array_equal(one, other) and one.dtype == np.float32
    assert np.array_equal(one, _epoch(black_and_white, 1))
    held_out = _held_out(black_and_white, "test")
    assert np.array_equal(held_out, _held_out(black_and_white, "test"))
    probability = digits.test.rows / 16
    assert (held_out[probability == 0] == 0).all() and (held_out[probability == 1] == 1).all()
    for level in range(1, 16):
        drawn = held_out[probability == level / 16]
        # Frequencies of a few hundred draws or more: five standard deviations.
        assert abs(drawn.mean() - level / 16) < 5 * 0.5 / np.sqrt(len(drawn))


def test_rows_of_zeros_and_ones_stay_what_they_are():
    rows = Part((np.arange(60).reshape(20, 3) % 2).astype(np.float32))
    binary = Dataset("b", 0, rows, rows, rows, levels=2).binarised()
    assert np.array_equal(_held_out(binary, "test"), rows.rows) and binary.grey_levels is None
    with pytest.raises(ValueError, match="data: expected rows of levels to binarise, found none in b"):
        Dataset("b", 0, rows, rows, rows).binarised()


def test_digits_with_their_labels():
    from sklearn.datasets import load_digits

    labelled, plain = data.load("digits", labels=True), data.load("digits")
    found = load_digits()
    by_row = {tuple(row): target for row, target in zip(found.data, found.target, strict=True)}
    for part in ("train", "valid", "test"):
        rows = getattr(labelled, part)
        assert np.array_equal(rows.rows, getattr(plain, part).rows) and rows.context.shape == (len(rows), 1)
        assert [by_row[tuple(row)] for row in rows.rows] == rows.context[:, 0].tolist()
    assert labelled.context_columns == ("digit",)
    with pytest.raises(data.DataError, match="labels: expected true or false for digits, found 3"):
        data.load("digits", labels=3)
