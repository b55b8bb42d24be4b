from __future__ import annotations

import numpy as np
import pytest

from fastgen.data import Part, part

ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((np.zeros((0, 2), np.float32),), ValueError, r"rows: expected at least one row .* found shape \(0, 2\)"),
        ((np.zeros(3, np.float32),), ValueError, r"rows: .* found shape \(3,\)"),
        ((np.zeros((3, 2), np.int64),), TypeError, "rows: expected float32 or float64, all arrays alike, found int64"),
        ((ROWS, np.zeros((6, 1))), TypeError, "context: expected float32 or float64, all arrays alike, found float64"),
        ((ROWS, np.zeros((5, 1), np.float32)), ValueError, r"context: expected 2 axes and 6 rows, found shape \(5, 1\)"),
        ((np.where(ROWS == 7, np.inf, ROWS),), ValueError, r"rows: expected finite numbers, found inf at \[3, 1\]"),
        ((ROWS, None, -np.ones(6, np.float32)), ValueError, "weight: expected numbers of at least 0, not all 0"),
        ((ROWS, None, np.zeros(6, np.float32)), ValueError, "weight: expected numbers of at least 0, not all 0"),
    ],
)
def test_bad_arrays_are_named(arrays, error, message):
    with pytest.raises(error, match=message):
        Part(*arrays)


def test_rows_are_taken_with_their_context_and_weight():
    whole = Part(ROWS, ROWS[:, :1] + 100, np.arange(6, dtype=np.float32))
    taken = whole.take(np.array([4, 1]))
    assert taken.rows[:, 0].tolist() == [8, 2] and taken.context.tolist() == [[108], [102]] and taken.weight.tolist() == [4, 1]
    assert (taken.features, taken.context_features, taken.weighted, taken.dtype) == (2, 1, True, np.float32)


def test_a_part_larger_than_a_window_is_read_in_windows_of_whole_batches(monkeypatch):
    monkeypatch.setattr(part, "WINDOW_BYTES", 20 * 8)
    rows = np.arange(200, dtype=np.float32).reshape(100, 2)
    windows = Part(rows).windows(np.random.default_rng(0), 8)
    # 20 rows fit, 16 are whole batches.
    assert [len(window) for window in windows] == [16, 16, 16, 16, 16, 16, 4]
    read = np.concatenate([window.read().rows for window in windows])
    assert not np.array_equal(read, rows) and sorted(map(tuple, read)) == sorted(map(tuple, rows))
    again = Part(rows).windows(np.random.default_rng(0), 8)
    assert np.array_equal(read, np.concatenate([window.read().rows for window in again]))
    assert [len(window) for window in Part(rows).windows(np.random.default_rng(0), 50)] == [50, 50]


def test_a_small_part_is_one_window():
    whole = Part(ROWS)
    assert whole.windows(np.random.default_rng(0), 4) == [whole]
