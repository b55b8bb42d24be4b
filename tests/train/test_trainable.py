"""What cannot be trained is refused before anything is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from density import Diagonal, shifted
from torch import nn

from fastgen.data import Dataset, Part, load, part
from fastgen.flows import MAF, Uniform
from fastgen.models import BernoulliMADE, CategoricalMADE
from fastgen.train import NonFiniteLoss, TensorBoard, TrainConfig, fit, train
from fastgen.train.batches import batch_count, epoch_batches, smallest_batch


def _maf(**options):
    torch.manual_seed(0)
    return MAF(3, transforms=2, hidden_features=(8,), **options)


class Column(Diagonal):
    def log_prob(self, x):
        return super().log_prob(x)[:, None]


class Nothing(nn.Module):
    def log_prob(self, x):
        return -x.sum(-1)


ROWS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (_maf(), torch.zeros(60, 4), {}, r"x: expected shape \(\.\.\., 3\), found \(2, 4\)"),
        (_maf(context_features=2), ROWS, {}, r"context: expected shape \(\.\.\., 2\), found None"),
        (_maf(), ROWS, {"context": ROWS}, "context: expected None"),
        (Column(3), ROWS, {}, r"model: expected a log_prob of shape \(2,\), found \(2, 1\)"),
        (Nothing(), ROWS, {}, "model: expected parameters to learn, found none"),
        (_maf(batch_norm=True), ROWS, {"batch_size": 1}, "batch_size: expected at least 2 rows at a time .*, found 1$"),
        (_maf(batch_norm=True), ROWS, {"batch_size": 9, "accumulate": 9}, "batch_size: .*, found 9 in 9 pieces"),
        (_maf(), ROWS, {"weight": torch.eye(60)[0]}, "weight: expected some above 0 on both sides"),
        (_maf(), shifted(), {"weight": torch.ones(300)}, "weight: expected None beside a data set"),
        (BernoulliMADE(3, hidden_features=(8,)), ROWS, {}, "data: expected whole numbers from 0 to 1 for BernoulliMADE"),
        (CategoricalMADE(64, categories=5), load("digits"), {}, "data: expected whole numbers from 0 to 4 for CategoricalMADE"),
        (_maf(), ROWS, {"epochs": 2.5}, "epochs: expected a whole number, found 2.5"),
        (_maf(), ROWS, {"learning_rate": "1e-3"}, "learning_rate: expected a number, found '1e-3'"),
        (_maf(), ROWS, {"keep": True}, "keep: expected a whole number, found True"),
        (_maf(), ROWS, {"compile": "no"}, "compile: expected true or false, found 'no'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(model, data, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(model, data, run=tmp_path, **{"epochs": 1, **options})
    assert not (tmp_path / "log.csv").exists() and not list(tmp_path.glob("*.safetensors"))


def test_resuming_what_is_not_there_makes_no_folder(tmp_path):
    for folder in (None, tmp_path / "none"):
        with pytest.raises(ValueError, match="run: expected the folder of a run to resume, found"):
            fit(_maf(), ROWS, run=folder, resume=True, epochs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", [np.array([["a", "b"]] * 20), np.ones((20, 2), np.complex64)])
def test_numbers_that_are_not_real_are_refused(values):
    with pytest.raises(TypeError, match="data: expected real numbers, found"):
        fit(Diagonal(2), values, epochs=1)


def test_rows_of_odd_layouts_train_as_their_copies():
    rows = ROWS.numpy()
    for odd, copy in (
        (rows[::-1, ::-1], rows[::-1, ::-1].copy()),
        (ROWS.bfloat16(), ROWS.bfloat16().float()),
        (torch.as_tensor(rows.T.copy()).T, ROWS),
    ):
        one, other = (fit(_maf(), values, epochs=2, valid=Part(rows[::-1])) for values in (odd, copy))
        assert [r.valid for r in one] == [r.valid for r in other]


def test_the_smallest_batch():
    for rows in range(1, 30):
        for size in range(1, 12):
            count = batch_count(rows, size)
            sizes = [size] * (count - 1) + [rows - size * (count - 1)]
            assert smallest_batch(rows, size) == min(sizes), (rows, size)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_last_row_alone_joins_a_batch_across_windows_too(mapped, tmp_path, monkeypatch):
    # Windows of 8 rows of 3 numbers of 4 bytes; 17 and more rows, and so 1 and more in the last window.
    monkeypatch.setattr(part, "WINDOW_BYTES", 8 * 12)
    for rows in range(17, 26):
        np.save(tmp_path / "x.npy", np.arange(rows * 3, dtype=np.float32).reshape(rows, 3))
        whole = load(tmp_path / "x.npy", mapped=mapped, valid=0.05, test=0.05).train
        batches = list(epoch_batches(Dataset("x", 0, whole, whole, whole), 1, 4, 0, torch.zeros(1)))
        assert len(batches) == batch_count(len(whole), 4) and min(len(b.x) for b in batches) == smallest_batch(len(whole), 4)
        assert sorted(torch.cat([b.x for b in batches])[:, 0].tolist()) == sorted(whole.read().rows[:, 0].tolist())


def test_a_trained_model_is_in_evaluation_mode():
    flow = _maf(batch_norm=True)
    fit(flow, ROWS, epochs=2)
    # In training mode a batch normalisation has no inverse.
    assert not flow.training and flow.sample(5).isfinite().all()


def test_the_term_is_named_where_one_row_of_a_batch_norm_is_outside():
    rows = ROWS.numpy().clip(-2, 2)
    rows[0] = 8.0
    # Normalised by the 60 rows together, all but the first of them lie inside.
    flow = _maf(batch_norm=True, base=Uniform(-4, 4, 3))
    with pytest.raises(NonFiniteLoss, match=r"in 1 of 60 rows: the log_prob of the base \(Uniform\) is not finite"):
        train(flow, Dataset("x", 0, Part(rows), Part(rows[1:]), Part(rows[1:])), TrainConfig(epochs=1))


def test_the_advice_is_not_to_do_what_is_done():
    with pytest.raises(NonFiniteLoss, match=r"lower learning_rate \(1000000.0\) or clip_norm \(None\)$"):
        fit(_maf(), ROWS, epochs=3, learning_rate=1e6, clip_norm=None, on_nonfinite="skip", batch_size=20)


@pytest.mark.parametrize("change", ["rows", "context", "weight", "valid"])
def test_other_data_anywhere_is_refused_on_resume(change, tmp_path):
    def arrays(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {name: rng.random((20, 2)) for name in ("rows", "context", "valid")} | {"weight": rng.random(20) + 0.1}

    def go_on(found: dict[str, np.ndarray], resume: bool) -> None:
        torch.manual_seed(0)
        flow = MAF(2, context_features=2, transforms=1, hidden_features=(4,), dtype=torch.float64)
        held_out = Part(found["valid"], found["valid"], np.ones(20))
        own = {name: found[name] for name in ("context", "weight")}
        fit(flow, found["rows"], valid=held_out, run=tmp_path, resume=resume, epochs=2 if resume else 1, **own)

    go_on(arrays(0), resume=False)
    with pytest.raises(ValueError, match="data: expected that of the run that is resumed"):
        go_on({**arrays(0), change: arrays(1)[change]}, resume=True)
    go_on(arrays(0), resume=True)


def test_curves_of_a_resumed_run_keep_the_epoch_it_goes_on_after(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    for epochs in (2, 4):
        torch.manual_seed(0)
        curves = TensorBoard(tmp_path / "curves")
        fit(_maf(), ROWS, run=tmp_path, resume=epochs > 2, epochs=epochs, batch_size=27, observers=[curves])
    read = events.EventAccumulator(str(tmp_path / "curves"))
    read.Reload()
    # 54 rows: two steps an epoch.
    assert [event.step for event in read.Scalars("valid")] == [2, 4, 6, 8]
