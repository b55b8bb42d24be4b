from __future__ import annotations

import csv
import io
import math
from itertools import chain

import numpy as np
import pytest
import torch
from density import Diagonal, shifted
from rich.console import Console

from fastgen.data import Dataset, Part
from fastgen.train import CsvLog, Epoch, NonFiniteLoss, Observer, TrainConfig, adam, log_likelihood, progress, train

QUICK = TrainConfig(epochs=30, batch_size=32, learning_rate=0.05)


def test_the_likelihood_rises_to_that_of_the_true_density():
    model, data = Diagonal(3), shifted()
    records = train(model, data, QUICK)
    # The entropy of a normal density with standard deviation 1/2; 100 rows of 3 features estimate it to about 0.04.
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert records[-1].valid > records[0].valid + 1
    assert log_likelihood(model, data).mean / 3 == pytest.approx(-entropy, abs=0.12)


def test_records_are_in_nats_per_dimension_and_count_steps():
    model, data = Diagonal(3), shifted(rows=70)
    start = log_likelihood(model, data, "train").mean / 3
    # A rate that moves nothing: the epoch's likelihood is that of the start.
    records = train(model, data, TrainConfig(epochs=2, batch_size=32, learning_rate=1e-12))
    assert [r.epoch for r in records] == [1, 2] and [r.step for r in records] == [3, 6]
    assert records[0].train == pytest.approx(start, rel=1e-5) and records[0].rate == 1e-12


@pytest.mark.parametrize("levels", [None, 5])
def test_the_same_seed_gives_the_same_bits(levels):
    def run(seed: int) -> tuple[list[tuple[float, ...]], list[torch.Tensor]]:
        data = shifted()
        data = Dataset("x", 0, Part(np.rint(data.train.rows).clip(0)), data.valid, data.test, levels=levels)
        model = Diagonal(3)
        records = train(model, data, TrainConfig(epochs=4, batch_size=32, seed=seed))
        return [(r.train, r.valid) for r in records], [p.detach() for p in model.parameters()]

    (one, weights), (again, same_weights), (other, _) = run(0), run(0), run(1)
    assert one == again and all(torch.equal(a, b) for a, b in zip(weights, same_weights, strict=True))
    assert one != other


def test_the_rows_of_an_epoch_are_shuffled_and_complete():
    class Seen(Diagonal):
        def log_prob(self, x):
            if self.training:
                batches.append(x[:, 0].tolist())
            return super().log_prob(x)

    batches: list[list[float]] = []
    rows = np.arange(10, dtype=np.float32)[:, None]
    train(Seen(1), Dataset("x", 0, *[Part(rows)] * 3), TrainConfig(epochs=2, batch_size=4))
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))


def test_every_epoch_has_fresh_noise():
    class Seen(Diagonal):
        def log_prob(self, x):
            if self.training:
                epochs.append(x.detach().sort(dim=0).values)
            return super().log_prob(x)

    epochs: list[torch.Tensor] = []
    rows = np.arange(4, dtype=np.float32)[:, None]
    train(Seen(1), Dataset("x", 0, *[Part(rows)] * 3, levels=4), TrainConfig(epochs=2, batch_size=4))
    assert torch.equal(epochs[0].floor(), epochs[1].floor()) and not torch.equal(epochs[0], epochs[1])


def test_early_stopping_keeps_the_best_weights():
    # The fit moves past the validation rows' mean, halfway to that of the training rows.
    train_rows, valid_rows = np.full((8, 1), 2.0, np.float32), np.full((8, 1), 1.0, np.float32)
    model = Diagonal(1)
    model.log_scale.requires_grad_(False)
    config = TrainConfig(epochs=500, batch_size=8, learning_rate=0.05, patience=3)
    records = train(model, Dataset("x", 0, Part(train_rows), *[Part(valid_rows)] * 2), config)
    best = max(records, key=lambda r: r.valid)
    assert len(records) == best.epoch + 3 < 500
    assert records[-1].valid < best.valid
    # Steps of at most 0.05 pass the best mean, 1, at that distance.
    assert model.mean.item() == pytest.approx(1, abs=0.05)
    assert mean_log_prob(model, torch.from_numpy(valid_rows)) == pytest.approx(best.valid, rel=1e-6)
    assert model.log_scale.item() == 0


def test_gradients_are_clipped_to_the_norm(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in gradients]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    train(Diagonal(3), shifted(), TrainConfig(epochs=1, batch_size=32, clip_norm=0.25))
    train(Diagonal(3), shifted(), TrainConfig(epochs=1, batch_size=32, clip_norm=1e6))
    clipped, free = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert max(clipped) <= 0.25 * (1 + 1e-5) and min(free) > 0.25


def test_a_time_limit_ends_after_the_epoch_that_passes_it():
    assert len(train(Diagonal(3), shifted(), TrainConfig(epochs=50, seconds=1e-9))) == 1


class Diverges(Diagonal):
    """Gives `bad` from the call `at` on."""

    def __init__(self, bad: float, at: int) -> None:
        super().__init__(3)
        self.bad, self.at, self.calls = bad, at, 0

    def log_prob(self, x):
        self.calls += 1
        return super().log_prob(x) * (self.bad if self.calls >= self.at else 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_the_best_weights(bad, tmp_path):
    # 300 rows are 2 steps and 1 evaluation an epoch: the second epoch's first step is the fourth call.
    model, finished = Diverges(bad, at=4), []

    class Watch(Observer):
        def epoch(self, record, best):
            self.state = {k: v.clone() for k, v in best.state.items()}

        def finish(self):
            finished.append(True)

    watch = Watch()
    with pytest.raises(NonFiniteLoss, match=r"epoch 2: the train log-likelihood is .*; lower learning_rate"):
        train(model, shifted(), TrainConfig(epochs=5, batch_size=150), [watch])
    assert finished == [True]
    assert all(torch.equal(v, watch.state[k]) for k, v in model.state_dict().items())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_validation_likelihood_that_is_not_finite_stops_too():
    with pytest.raises(NonFiniteLoss, match="epoch 1: the valid log-likelihood is nan"):
        train(Diverges(math.nan, at=3), shifted(), TrainConfig(epochs=5, batch_size=150))


def test_an_interrupt_ends_training_with_the_best_weights():
    class Interrupt(Observer):
        def epoch(self, record, best):
            if record.epoch == 3:
                raise KeyboardInterrupt

    assert len(train(Diagonal(3), shifted(), QUICK, [Interrupt()])) == 3

    class AtOnce(Observer):
        def step(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Diagonal(3), shifted(), QUICK, [AtOnce()])


def test_float64_models_get_float64_rows():
    model = Diagonal(3).double()
    train(model, shifted(), TrainConfig(epochs=1))
    assert model.mean.dtype == torch.float64 and model.mean.abs().sum() > 0


def test_adam_is_fused_where_it_can_be(monkeypatch):
    assert adam(Diagonal(2).parameters(), 1e-3).defaults["fused"]
    made = torch.optim.AdamW.__init__

    def refuses(self, *args, fused=None, **kwargs):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported devices")
        made(self, *args, fused=fused, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", refuses)
    assert adam(Diagonal(2).parameters(), 1e-3).defaults["foreach"]


def test_evaluation_weighs_rows_alike_and_restores_the_mode():
    model = Diagonal(3)
    rows = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    assert mean_log_prob(model, rows) == pytest.approx(model.log_prob(rows.double()).mean().item(), rel=1e-6)
    assert model.training


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("patience", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("clip_norm", -1.0),
        ("seconds", 0.0),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("seed", -1),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .* found {value}"):
        TrainConfig(**{name: value})


def test_the_csv_log(tmp_path):
    log = CsvLog(tmp_path / "new" / "log.csv")
    records = train(Diagonal(3), shifted(), TrainConfig(epochs=3), [log])
    with open(tmp_path / "new" / "log.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == list(Epoch._fields)
    assert [[float(v) for v in line] for line in lines] == [list(map(float, r)) for r in records]


def test_progress_off_a_terminal_is_plain_lines():
    console = Console(file=io.StringIO(), width=80)
    config = TrainConfig(epochs=40)
    train(Diagonal(3), shifted(), config, [progress(console, 300, config)])
    lines = console.file.getvalue().splitlines()
    # The first epoch and the last, and no more than a slow machine adds between.
    assert 2 <= len(lines) <= 4 and "\x1b" not in console.file.getvalue()
    assert "epoch 40: train" in lines[-1] and "nats/dim" in lines[-1]


@pytest.mark.parametrize("seconds", [None, 1e-9])
def test_progress_on_a_terminal_is_a_bar(seconds):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    config = TrainConfig(epochs=4, seconds=seconds)
    train(Diagonal(3), shifted(), config, [progress(console, 300, config)])
    last = console.file.getvalue().splitlines()[-2]
    assert "\u2501" * 11 in last and f"epoch {4 if seconds is None else 1}: train" in last and "nats/dim" in last
