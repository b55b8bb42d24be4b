from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen.data import DataError, MappedPart, describe, load, part
from fastgen.data.dataset import PARTS
from fastgen.data.files import npy
from fastgen.data.mapped import cut, whole_ranges

ROWS = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)


def in_memory(dataset, what="rows"):
    return np.concatenate([getattr(getattr(dataset, name).read(), what) for name in PARTS])


def same_rows(one, other):
    return sorted(map(tuple, one.tolist())) == sorted(map(tuple, other.tolist()))


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    return tmp_path / "x.npy"


def test_every_row_is_in_one_part(path):
    dataset = load(path, mapped=True)
    assert all(isinstance(getattr(dataset, name), MappedPart) for name in PARTS)
    assert same_rows(in_memory(dataset), ROWS)
    # Fractions of 200 blocks of 25 rows.
    assert [len(getattr(dataset, name)) for name in PARTS] == [4000, 500, 500]
    again, other = load(path, mapped=True), load(path, mapped=True, seed=1)
    assert np.array_equal(in_memory(again), in_memory(dataset)) and not np.array_equal(in_memory(other), in_memory(dataset))


def test_only_large_files_stay_where_they_are(path, monkeypatch):
    assert not isinstance(load(path).train, MappedPart)
    monkeypatch.setattr(npy, "MAPPED_BYTES", ROWS.nbytes - 1)
    assert isinstance(load(path).train, MappedPart) and not isinstance(load(path, mapped=False).train, MappedPart)
    assert describe(path).mapped
    np.save(path, np.asfortranarray(ROWS))
    assert not isinstance(load(path).train, MappedPart)
    with pytest.raises(DataError, match=r"x\.npy: expected rows in C order to leave them in the file, found Fortran order"):
        load(path, mapped=True)


@pytest.mark.parametrize("stored", ["<f4", ">f4", "<f8", "<i2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_and_roles_are_those_of_memory(tmp_path, stored, dtype):
    rows = np.abs(100 * np.random.default_rng(1).standard_normal((3000, 4))).astype(stored)
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "labels.npy", np.arange(3000) % 3)
    options = {"columns": [3, 0], "context": [1], "weight": 2, "labels": tmp_path / "labels.npy", "dtype": dtype}
    mapped, memory = load(tmp_path / "x.npy", mapped=True, **options), load(tmp_path / "x.npy", mapped=False, **options)
    for what in ("features", "context_features", "context_columns"):
        assert getattr(mapped, what) == getattr(memory, what)

    def beside(dataset):
        return np.hstack([in_memory(dataset), in_memory(dataset, "context"), in_memory(dataset, "weight")[:, None]])

    assert mapped.train.dtype == beside(mapped).dtype == dtype and mapped.train.weighted
    assert same_rows(beside(mapped), beside(memory))


def test_an_epoch_hands_out_every_row_once_in_whole_batches(path, monkeypatch):
    monkeypatch.setattr(part, "WINDOW_BYTES", 600 * 12)
    dataset = load(path, mapped=True)
    windows = dataset.epoch(1, 64, 0)
    # 600 rows fit, 576 are whole batches.
    assert [len(window) for window in windows] == [576] * 6 + [4000 - 6 * 576]
    rows = np.concatenate([window.read().rows for window in windows])
    assert same_rows(rows, in_memory(load(path, mapped=True))[:4000])
    assert np.array_equal(rows, np.concatenate([window.read().rows for window in dataset.epoch(1, 64, 0)]))
    assert not np.array_equal(rows, np.concatenate([window.read().rows for window in dataset.epoch(2, 64, 0)]))
    assert not np.array_equal(rows, np.concatenate([window.read().rows for window in dataset.epoch(1, 64, 1)]))


def test_a_batch_larger_than_a_window_is_a_window(path, monkeypatch):
    monkeypatch.setattr(part, "WINDOW_BYTES", 1200)
    assert [len(window) for window in load(path, mapped=True).epoch(1, 1500, 0)] == [1500, 1500, 1000]


def test_chunks_are_the_rows_in_order(path, monkeypatch):
    monkeypatch.setattr(part, "WINDOW_BYTES", 7000)
    train = load(path, mapped=True).train
    chunks = [chunk.rows for chunk in train.chunks()]
    assert len(chunks) > 5 and np.array_equal(np.concatenate(chunks), train.read().rows)


def test_rows_with_missing_values_are_named_or_dropped(tmp_path):
    rows = ROWS.copy()
    bad = [0, 24, 25, 26, 1000, 4999]
    rows[bad, 1] = np.nan
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(DataError, match=r"x\.npy: expected finite numbers, found nan \(row 0, column 1\)"):
        load(tmp_path / "x.npy", mapped=True)
    assert same_rows(in_memory(load(tmp_path / "x.npy", mapped=True, missing="drop")), np.delete(ROWS, bad, axis=0))
    rows[1:] = np.nan
    np.save(tmp_path / "x.npy", rows)
    with pytest.raises(DataError, match="expected a row of finite numbers, found none among 5000"):
        load(tmp_path / "x.npy", mapped=True, missing="drop")


def test_levels_keep_their_noise(tmp_path):
    np.save(tmp_path / "x.npy", (ROWS > 0).astype(np.uint8))
    dataset = load(tmp_path / "x.npy", mapped=True)
    assert dataset.levels == 2
    noisy = np.concatenate([window.read().rows for window in dataset.epoch(0, 64, 0)])
    assert noisy.min() >= 0 and noisy.max() < 2 and same_rows(np.floor(noisy), in_memory(dataset)[:4000])


def test_a_file_that_changes_or_goes_is_named(path):
    dataset = load(path, mapped=True)
    os.truncate(path, ROWS.nbytes // 2)
    with pytest.raises(DataError, match=r"x\.npy: expected the file as it was when it was opened, found it changed"):
        dataset.train.read()
    path.unlink()
    with pytest.raises(DataError, match=r"x\.npy: expected to read on, found: No such file"):
        dataset.train.read()


def test_too_few_rows_for_three_parts(tmp_path):
    np.save(tmp_path / "x.npy", ROWS[:3])
    with pytest.raises(DataError, match="expected a row at least in each of train, valid and test, found 3, 0, 0"):
        load(tmp_path / "x.npy", mapped=True)


RANGES = st.lists(st.integers(1, 20), min_size=1, max_size=20).map(
    lambda lengths: np.array([(100 * i, 100 * i + length) for i, length in enumerate(lengths)][::-1])
)


@settings(derandomize=True, deadline=None)
@given(ranges=RANGES, rows=st.integers(1, 50))
def test_cut_keeps_rows_and_their_order(ranges, rows):
    def listed(ranges):
        return [row for start, stop in ranges.tolist() for row in range(start, stop)]

    groups = [listed(group) for group in cut(ranges, rows)]
    assert [row for group in groups for row in group] == listed(ranges)
    assert all(len(group) == rows for group in groups[:-1])
    # A last row alone joins the group before.
    assert 1 < len(groups[-1]) <= rows + 1 if len(groups) > 1 else 0 < len(groups[-1]) <= rows + 1


@settings(derandomize=True, deadline=None)
@given(rows=st.integers(1, 60), block_rows=st.integers(1, 20), data=st.data())
def test_whole_ranges_leave_out_the_dropped_rows_only_and_stay_in_their_block(rows, block_rows, data):
    dropped = np.array(sorted(data.draw(st.sets(st.integers(0, rows - 1)))), np.intp)
    ranges = whole_ranges(rows, block_rows, dropped)
    left = [row for start, stop in ranges.tolist() for row in range(start, stop)]
    assert left == sorted(set(range(rows)) - set(dropped.tolist()))
    assert (ranges[:, 0] // block_rows == (ranges[:, 1] - 1) // block_rows).all()


_PASS = """
import sys
from fastgen import data
from fastgen.data import part

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

part.WINDOW_BYTES = 8 << 20
before = peak()
dataset = data.load(sys.argv[1], mapped=True)
rows = sum(len(window.read()) for window in dataset.epoch(0, 256, 0)) + sum(map(len, dataset.held_out("test")))
print(rows, peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc to tell the memory of a process")
def test_an_epoch_of_a_large_file_takes_the_memory_of_a_few_windows(tmp_path):
    path = tmp_path / "x.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (1 << 20, 64))
    del rows
    out = subprocess.run([sys.executable, "-c", _PASS, path], capture_output=True, text=True, check=True).stdout.split()
    # Train and test are nine tenths of 256 MiB. A window of 8 MiB, shuffled, and the noise of its levels are six of those.
    assert abs(int(out[0]) - 0.9 * (1 << 20)) < 0.02 * (1 << 20) and int(out[1]) < 64 << 10
