from __future__ import annotations

import numpy as np
import pytest

from fastgen.data import noise
from fastgen.data.noise import noise_data

F32 = np.dtype(np.float32)


def rows_of(data, epoch: int, batch_size: int = 16, seed: int = 0) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.concatenate([window.read().rows for window in data.epoch(epoch, batch_size, seed)])


def test_an_epoch_is_fresh_and_always_the_same() -> None:
    data = noise_data(5, 100, 30, 0, F32)
    one, again, other = rows_of(data, 1), rows_of(noise_data(5, 100, 30, 0, F32), 1), rows_of(data, 2)
    assert one.shape == (100, 5) and one.dtype == np.float32
    assert np.array_equal(one, again)
    every = np.concatenate([one, other, rows_of(data, 1, seed=1), *(part.rows for part in data.held_out("valid"))])
    assert len(np.unique(every)) == every.size


def test_it_is_standard_normal() -> None:
    rows = rows_of(noise_data(4, 50000, 1, 0, np.dtype(np.float64)), 1)
    assert rows.dtype == np.float64
    # Standard errors of 0.0045 for a mean and a covariance.
    assert np.abs(rows.mean(0)).max() < 0.025 and np.abs(np.cov(rows.T) - np.eye(4)).max() < 0.035


def test_held_out_rows_stay_and_differ_from_part_to_part() -> None:
    data = noise_data(3, 10, 40, 7, F32)
    valid, test = (np.concatenate([part.rows for part in data.held_out(name)]) for name in ("valid", "test"))
    assert valid.shape == test.shape == (40, 3)
    assert not np.isin(valid, test).any()
    assert np.array_equal(valid, np.concatenate([part.rows for part in data.held_out("valid")]))


def test_more_than_fits_in_memory_comes_in_windows_of_whole_batches(monkeypatch) -> None:
    monkeypatch.setattr(noise, "window_rows", lambda source, batch_size: 4 * batch_size)
    data = noise_data(3, 100, 10, 0, F32)
    windows = data.epoch(1, 8, 0)
    assert [len(w) for w in windows] == [32, 32, 32, 4] and len(np.unique(rows_of(data, 1, 8))) == 300
    assert [len(part) for part in data.held_out("valid")] == [4, 4, 2]


@pytest.mark.parametrize(("name", "sizes"), [("rows", (0, 1)), ("held_out", (1, 0))])
def test_no_rows_are_refused(name: str, sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, found 0"):
        noise_data(3, *sizes, 0, F32)
