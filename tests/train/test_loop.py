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
from fastgen.flows import MAF
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
    rows = Dataset("x", 0, *[Part(valid_rows)] * 3)
    assert log_likelihood(model, rows).mean == pytest.approx(best.valid, rel=1e-6)
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
    # A look at two rows, then 2 steps and 1 evaluation an epoch of 300: the second epoch's first step is the fifth call.
    model, finished = Diverges(bad, at=5), []

    class Watch(Observer):
        def epoch(self, record, best):
            self.state = {k: v.clone() for k, v in best.state.items()}

        def finish(self):
            finished.append(True)

    watch = Watch()
    with pytest.raises(NonFiniteLoss, match=rf"step 3 \(epoch 2\): log_prob is -?{bad} in 150 of 150 rows; lower"):
        train(model, shifted(), TrainConfig(epochs=5, batch_size=150), [watch])
    assert finished == [True]
    assert all(torch.equal(v, watch.state[k]) for k, v in model.state_dict().items())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_validation_likelihood_that_is_not_finite_stops_too():
    with pytest.raises(NonFiniteLoss, match="epoch 1: the valid log-likelihood is nan"):
        train(Diverges(math.nan, at=4), shifted(), TrainConfig(epochs=5, batch_size=150))


class Sometimes(Diagonal):
    """Gives nan for the batches that hold a row above `limit`, or a gradient that is not finite."""

    def __init__(self, gradient: bool) -> None:
        super().__init__(3)
        self.gradient = gradient

    def log_prob(self, x):
        seen = (x.amax() > 4.0).float() if self.training else torch.zeros(())
        if self.gradient:
            # The square root's derivative at zero is infinite.
            return super().log_prob(x) + (self.mean.sum() * 0 + 1 - seen).sqrt() - (1 - seen).sqrt()
        return super().log_prob(x) + torch.where(seen > 0, torch.nan, 0.0)


@pytest.mark.parametrize("gradient", [False, True])
def test_steps_that_are_not_finite_can_be_skipped(gradient):
    data = shifted()
    above = (data.train.rows > 4.0).any(axis=1)
    assert 0 < above.sum() < len(above)
    model = Sometimes(gradient)
    records = train(model, data, TrainConfig(epochs=2, batch_size=4, on_nonfinite="skip"))
    batches = [data.epoch(r.epoch, 4, 0)[0].read().rows.reshape(-1, 12) for r in records]
    assert [r.skipped for r in records] == [int((b > 4.0).any(axis=1).sum()) for b in batches]
    assert all(0 < r.skipped < 75 for r in records)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("gradient", [False, True])
def test_the_step_and_the_term_are_named(gradient):
    data = shifted()
    rows = data.epoch(1, 4, 0)[0].read().rows.reshape(-1, 12)
    first = int((rows > 4.0).any(axis=1).argmax()) + 1
    term = "the gradient of mean is not finite" if gradient else "log_prob is nan in 4 of 4 rows"
    with pytest.raises(NonFiniteLoss, match=rf"step {first} \(epoch 1\): {term}; lower learning_rate"):
        train(Sometimes(gradient), data, TrainConfig(epochs=2, batch_size=4))


def test_the_term_of_a_flow_is_named():
    flow = MAF(3, transforms=2, hidden_features=(8,))
    data = shifted()
    with torch.no_grad():
        flow.transform[1].made.layers[0].weight.fill_(3e38)
    with pytest.raises(NonFiniteLoss, match=r"step 1 .*: log_prob is .*: the output of transform 1 \(MaskedAutoregressive"):
        train(flow, data, TrainConfig(epochs=1))
    with torch.no_grad():
        flow.transform[0].made.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteLoss, match=r"step 1 .*: the parameter transform.transforms.0.made.layers.0.weight is not fin"):
        train(flow, data, TrainConfig(epochs=1))


def test_an_epoch_without_a_finite_step_is_the_end():
    with pytest.raises(NonFiniteLoss, match="epoch 1: none of its 2 steps had a finite loss and gradient"):
        train(Diverges(math.nan, at=1), shifted(), TrainConfig(epochs=5, batch_size=150, on_nonfinite="skip"))


def test_pieces_of_a_batch_have_the_gradient_of_the_whole():
    def run(accumulate: int) -> tuple[list[float], torch.Tensor]:
        model = Diagonal(3).double()
        records = train(model, shifted(), TrainConfig(epochs=2, batch_size=50, accumulate=accumulate))
        return [r.valid for r in records], model.mean.detach()

    (one, mean), (three, same) = run(1), run(3)
    assert one == pytest.approx(three, rel=1e-12) and torch.allclose(mean, same, rtol=1e-12)


def test_weights_count_as_repeated_rows():
    rows = shifted().train.rows
    times = np.random.default_rng(0).integers(1, 4, len(rows))
    weighted, repeated = Part(rows, weight=times.astype(np.float32)), Part(rows.repeat(times, axis=0))

    def run(part: Part) -> tuple[float, torch.Tensor]:
        model = Diagonal(3).double()
        # One step an epoch: the batches would differ otherwise.
        (*_, last) = train(
            model, Dataset("x", 0, *[part] * 3), TrainConfig(epochs=20, batch_size=len(part), learning_rate=0.05)
        )
        return last.valid, model.mean.detach()

    (one, mean), (other, same) = run(weighted), run(repeated)
    assert one == pytest.approx(other, rel=1e-9) and torch.allclose(mean, same, rtol=1e-9)


def test_the_moving_average_is_what_is_validated_and_kept():
    class Watch(Observer):
        def start(self, plan, records, best):
            self.average = model.mean.detach().clone()
            self.n = 0

        def step(self):
            self.n += 1
            keep = min(0.9, (1 + self.n) / (10 + self.n))
            self.average = keep * self.average + (1 - keep) * model.mean.detach()

        def epoch(self, record, best):
            if best.record is record:
                self.best = self.average

    model, watch = Diagonal(3), Watch()
    train(model, shifted(), TrainConfig(epochs=5, batch_size=32, learning_rate=0.05, ema=0.9), [watch])
    torch.testing.assert_close(model.mean.detach(), watch.best, rtol=1e-5, atol=1e-6)


def test_bfloat16_runs_the_model_under_autocast():
    class Watch(Diagonal):
        def log_prob(self, x):
            if self.training:
                seen.add((x @ x.T).dtype)
            return super().log_prob(x)

    seen: set[torch.dtype] = set()
    model = Watch(3)
    train(model, shifted(), TrainConfig(epochs=1, precision="bfloat16"))
    assert seen == {torch.bfloat16} and model.mean.dtype == torch.float32


def test_a_compiled_model_trains_alike():
    def run(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = MAF(3, transforms=1, hidden_features=(8,))
        return [r.valid for r in train(model, shifted(), TrainConfig(epochs=2, batch_size=100, compile=compiled))]

    assert run(True) == pytest.approx(run(False), rel=1e-4)


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
    rows = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    found = log_likelihood(model, Dataset("x", 0, *[Part(rows)] * 3))
    expected = model.log_prob(torch.from_numpy(rows).double()).detach()
    np.testing.assert_allclose(found.per_row, expected, rtol=1e-5)
    assert found.mean == pytest.approx(expected.mean().item(), rel=1e-6)
    assert found.standard_error == pytest.approx(expected.std().item() / 5000**0.5, rel=1e-4)
    assert model.training


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("patience", 0),
        ("keep", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", None),
        ("clip_norm", -1.0),
        ("seconds", 0.0),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("warmup_steps", -1),
        ("ema", 1.0),
        ("final_rate", 1.5),
        ("plateau_factor", 0.0),
        ("schedule", "linear"),
        ("precision", "int8"),
        ("on_nonfinite", "ignore"),
        ("seed", -1),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .* found {value!r}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["clip_norm", "ema", "seconds"])
def test_some_settings_may_be_none(name):
    assert getattr(TrainConfig(**{name: None}), name) is None


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
    train(Diagonal(3), shifted(), config, [progress(console, config)])
    lines = console.file.getvalue().splitlines()
    # The first epoch and the last, and no more than a slow machine adds between.
    assert 2 <= len(lines) <= 4 and "\x1b" not in console.file.getvalue()
    assert "epoch 40: train" in lines[-1] and "nats/dim" in lines[-1]


@pytest.mark.parametrize("seconds", [None, 1e-9])
def test_progress_on_a_terminal_is_a_bar(seconds):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    config = TrainConfig(epochs=4, seconds=seconds)
    train(Diagonal(3), shifted(), config, [progress(console, config)])
    last, pace, _ = console.file.getvalue().splitlines()[-3:]
    assert "\u2501" * 11 in last and f"epoch {4 if seconds is None else 1}: train" in last and "nats/dim" in last
    assert "rows/s" in pace
