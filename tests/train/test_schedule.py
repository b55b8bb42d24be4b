from __future__ import annotations

import pytest

from fastgen.train import TrainConfig
from fastgen.train.schedule import Schedule


def _rates(steps: int, **settings) -> list[float]:
    schedule = Schedule(TrainConfig(learning_rate=0.1, **settings), steps)
    return [schedule.rate(step) for step in range(steps)]


def test_constant():
    assert _rates(4) == [0.1] * 4


def test_cosine_ends_at_the_final_rate():
    rates = _rates(11, schedule="cosine", final_rate=0.2)
    assert rates[0] == pytest.approx(0.1) and rates == sorted(rates, reverse=True)
    # Halfway, at a step and a half of the period of eleven steps from either side, the two sides add up to the sum of the ends.
    assert rates[1] + Schedule(TrainConfig(learning_rate=0.1, schedule="cosine", final_rate=0.2), 11).rate(10) == pytest.approx(
        0.1 + 0.02
    )
    assert Schedule(TrainConfig(learning_rate=0.1, schedule="cosine", final_rate=0.2), 11).rate(11) == pytest.approx(0.02)


def test_warm_up_rises_to_the_schedule():
    assert _rates(5, warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    rates = _rates(20, schedule="cosine", warmup_steps=4)
    assert rates.index(max(rates)) in (3, 4) and rates[4:] == sorted(rates[4:], reverse=True)
    assert _rates(20, schedule="cosine")[:16] != rates[4:]


def test_plateau_falls_after_epochs_without_progress():
    config = TrainConfig(learning_rate=0.1, schedule="plateau", plateau_factor=0.5, plateau_patience=2)
    schedule, seen = Schedule(config, 100), []
    for valid in (1.0, 2.0, 1.5, 1.9, 1.0, 2.5, 2.0, 2.0):
        schedule.epoch(valid)
        seen.append(schedule.rate(0))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025])


def test_the_state_of_a_plateau_is_continued():
    config = TrainConfig(schedule="plateau", plateau_patience=2)
    one, other = Schedule(config, 10), Schedule(config, 10)
    other.load(one.state())
    for i, valid in enumerate((1.0, 0.5, 0.2, 0.1, 3.0, 0.0, 0.0)):
        if i in (1, 3):
            other.load(one.state())
        one.epoch(valid), other.epoch(valid)
        assert one.rate(0) == other.rate(0)
