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


def test_a_rotation_takes_its_calls_in_turn() -> None:
    calls: list[str] = []
    turn = timing.Rotation([lambda name=name: calls.append(name) for name in "ab"])  # type: ignore[misc]
    for _ in range(5):
        turn()
    assert "".join(calls) == "ababa"


def test_graphs_are_timed_per_call_and_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for what takes a device."""

    class Graph:
        def __init__(self, calls: list) -> None:
            self.replay = lambda: len(calls)

    monkeypatch.setattr(timing, "_capture", Graph)
    monkeypatch.setattr(
        timing, "interleave", lambda graphs, **_: {name: [float(replay())] * 2 for name, replay in graphs.items()}
    )
    turn = timing.Rotation([lambda: None] * 4)
    assert timing.replay({"a": turn, "b": lambda: None}) == {"a": [1.0, 1.0], "b": [1.0, 1.0]}

    def refuses(calls: list) -> Graph:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(timing, "_capture", refuses)
    assert timing.replay({"a": turn}) is None
