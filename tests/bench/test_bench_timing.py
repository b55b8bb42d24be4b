"""The paired timer."""

from __future__ import annotations

import time

import pytest

from fastgen.bench import timing
from fastgen.bench.timing import interleave, pair_ratios, summarise


def test_times_and_ratios_of_known_lengths() -> None:
    times = interleave({"a": lambda: time.sleep(4e-3), "b": lambda: time.sleep(8e-3)}, seconds=0.2)
    assert len(times["a"]) == len(times["b"]) >= 7
    assert all(t >= 4e-3 for t in times["a"]) and all(t >= 8e-3 for t in times["b"])
    # A sleep may last longer than asked for, by tenths of a millisecond.
    assert pair_ratios(times["b"], times["a"]).median == pytest.approx(2, abs=0.3)


def test_every_other_round_runs_in_the_opposite_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 1e-9)
    calls: list[str] = []
    interleave({name: lambda name=name: calls.append(name) for name in "abc"}, seconds=0.0)  # type: ignore[misc]
    assert "".join(calls) == "abc" + "abccba" * 3 + "abc"


def test_short_calls_are_repeated_within_a_sample() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    rounds = len(interleave({"a": call}, seconds=0.01)["a"])
    assert calls > 100 * rounds


def test_a_summary_is_the_median_and_the_quartiles() -> None:
    assert summarise([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
