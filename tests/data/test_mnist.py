from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from fastgen import data
from fastgen.data import DataError, describe, load
from fastgen.data.dataset import PARTS

RNG = np.random.default_rng(0)


def _idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape) + array.tobytes()


def _write(folder, name, rows, first=0, packed=True):
    """Images of `rows` rows, each with its number in the first two pixels and the last digit of that as its label."""
    number = np.arange(first, first + rows)
    images = RNG.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = number // 256, number % 256
    for stem, array in ((f"{name}-images-idx3", images), (f"{name}-labels-idx1", (number % 10).astype(np.uint8))):
        content = _idx(array)
        (folder / f"{stem}-ubyte{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)


def _numbers(part):
    return (part.rows[:, 0] * 256 + part.rows[:, 1]).astype(int)


@pytest.mark.parametrize("packed", [True, False])
def test_the_test_file_alone_is_split_in_its_order(tmp_path, packed):
    _write(tmp_path, "t10k", 300, packed=packed)
    one, other = (load("mnist", seed=seed, dir=tmp_path) for seed in (1, 2))
    assert [len(getattr(one, part)) for part in PARTS] == [240, 30, 30]
    assert list(np.concatenate([_numbers(getattr(one, part)) for part in PARTS])) == list(range(300))
    assert all(np.array_equal(getattr(one, part).rows, getattr(other, part).rows) for part in PARTS)
    assert (one.name, one.features, one.levels, one.image_shape, one.grey_level) == ("mnist", 784, 256, (28, 28), 1.0)
    assert one.train.dtype == np.float32 and one.context_features == 0 and one.noise


def test_with_the_training_file_the_test_file_is_test(tmp_path):
    _write(tmp_path, "train", 200)
    _write(tmp_path, "t10k", 50, first=200)
    found = load("mnist", dir=tmp_path)
    assert [len(getattr(found, part)) for part in PARTS] == [180, 20, 50]
    assert sorted(np.concatenate([_numbers(found.train), _numbers(found.valid)])) == list(range(200))
    assert not np.array_equal(found.train.rows, load("mnist", seed=1, dir=tmp_path).train.rows)
    assert np.array_equal(_numbers(found.test), np.arange(200, 250))


@pytest.mark.parametrize("train", [True, False])
def test_labels_are_a_context_of_one_number(tmp_path, train):
    _write(tmp_path, "t10k", 100)
    if train:
        _write(tmp_path, "train", 100, first=100)
    found = load("mnist", dir=tmp_path, labels=True)
    for part in (getattr(found, name) for name in PARTS):
        assert part.context.shape == (len(part), 1) and part.context.dtype == np.float32
        assert np.array_equal(part.context[:, 0], _numbers(part) % 10)
    assert found.context_features == 1 and found.context_columns == ("digit",)
    without = load("mnist", dir=tmp_path)
    assert np.array_equal(without.train.rows, found.train.rows) and without.train.context is None


def test_names_with_a_dot_are_known(tmp_path):
    _write(tmp_path, "t10k", 20)
    (tmp_path / "t10k-images-idx3-ubyte.gz").rename(tmp_path / "t10k-images.idx3-ubyte.gz")
    assert len(load("mnist", dir=tmp_path).train) == 16


def test_it_is_described(tmp_path):
    _write(tmp_path, "t10k", 100)
    lines = describe("mnist", dir=tmp_path, labels=True).lines()
    assert lines[0] == f"source: mnist (in {tmp_path})"
    assert lines[1:3] == ["rows: 80 train, 10 valid, 10 test", "features: 784, 1 of context"]
    assert "levels: 256" in lines and "images: 28x28" in lines
    digit = describe("mnist", dir=tmp_path, labels=True).columns[-1]
    assert (digit.name, digit.role, digit.minimum, digit.maximum) == ("digit", "context", 0, 9)


def test_the_folder_has_to_be_there(tmp_path):
    for options, message in (
        ({}, r"mnist: expected the folder of its files \(dir, by --data-dir DIR or --set dir=DIR\), found none"),
        ({"dir": tmp_path / "gone"}, r"gone: expected a folder with t10k-images-idx3-ubyte or t10k-.*\.gz, found none"),
        ({"dir": __file__}, r"test_mnist\.py: expected a folder with t10k-images-idx3-ubyte .*, found a file"),
        ({"dir": tmp_path}, r"expected a file t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz, found none"),
    ):
        with pytest.raises(DataError, match=message):
            load("mnist", **options)


@pytest.mark.parametrize("missing", ["t10k-images-idx3", "t10k-labels-idx1", "train-labels-idx1"])
def test_a_missing_file_is_named(tmp_path, missing):
    _write(tmp_path, "train", 20)
    _write(tmp_path, "t10k", 20)
    (tmp_path / f"{missing}-ubyte.gz").unlink()
    with pytest.raises(DataError, match=rf"{tmp_path}: expected a file {missing}-ubyte or {missing}-ubyte\.gz, found none"):
        load("mnist", dir=tmp_path, labels=True)


WRONG = {
    "too few": (np.zeros((9, 28, 28), np.uint8), "mnist: expected at least 10 images to split, found 9"),
    "small": (np.zeros((20, 8, 8), np.uint8), r"t10k-images-idx3-ubyte: expected images of 28x28 bytes, found 8x8"),
    "flat": (np.zeros((20, 784), np.uint8), r"t10k-images-idx3-ubyte: expected images of 28x28 bytes, found none"),
}


@pytest.mark.parametrize(("images", "message"), WRONG.values(), ids=WRONG)
def test_other_images_are_refused(tmp_path, images, message):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(_idx(images))
    with pytest.raises(DataError, match=message):
        load("mnist", dir=tmp_path)


def test_damaged_files_and_labels_of_other_images_are_refused(tmp_path):
    _write(tmp_path, "t10k", 20)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(_idx(np.zeros(19, np.uint8))))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte\.gz: expected 20 rows as .*images-idx3-ubyte\.gz has, found 19"):
        load("mnist", dir=tmp_path, labels=True)
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"images-idx3-ubyte\.gz: expected a whole gzip file"):
        load("mnist", dir=tmp_path)


def test_options_of_others_are_refused(tmp_path):
    _write(tmp_path, "t10k", 20)
    for source, options, message in (
        ("mnist", {"levels": 2}, "mnist: expected no options but dir and labels, found levels"),
        ("mnist", {"labels": "x.idx"}, "labels: expected true or false for mnist, found 'x.idx'"),
        ("digits", {"dir": "."}, "digits: expected no options but labels, found dir"),
        ("x.npy", {"dir": "here"}, "x.npy: expected no dir, which is for mnist, found here"),
        ("x.npy", {"labels": True}, "labels: expected a file with a class per row, found True"),
    ):
        with pytest.raises(DataError, match=message):
            load(source, **({"dir": tmp_path} if source == "mnist" else {}), **options)


def test_the_real_files(real):
    folder = real("mnist/t10k-images-idx3-ubyte.gz").parent
    found = data.load("mnist", dir=folder, labels=True)
    assert [len(getattr(found, part)) for part in PARTS] == [8000, 1000, 1000]
    rows = np.concatenate([getattr(found, part).rows for part in PARTS])
    digits = np.concatenate([getattr(found, part).context[:, 0] for part in PARTS])
    # Ones are the darkest digits, zeros the brightest.
    brightness = [rows[digits == digit].mean() for digit in range(10)]
    assert np.argmin(brightness) == 1 and np.argmax(brightness) == 0
