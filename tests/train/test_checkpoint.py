from __future__ import annotations

import os

import pytest
import torch

from fastgen import data, io
from fastgen.train import TrainConfig, train
from fastgen.train.checkpoint import Checkpointer, load_checkpoint, save_checkpoint
from fastgen.train.models import build, preprocessing

CONFIG = TrainConfig(epochs=3, batch_size=64)


def _toy(seed: int = 0):
    torch.manual_seed(seed)
    moons = data.moons(size=200)
    return build("maf", moons, hidden_features=(8,), transforms=2), moons


def _description(model):
    return {"model": {"name": "maf", "config": model.config}}


@pytest.mark.parametrize("name", ["moons", "digits"])
def test_a_model_comes_back_with_the_same_density(tmp_path, name):
    rows = data.load(name)
    model = build("maf", rows, hidden_features=(16, 16), transforms=2)
    save_checkpoint(tmp_path / "c.safetensors", model.state_dict(), _description(model))
    again, description = load_checkpoint(tmp_path / "c.safetensors")
    x = torch.from_numpy(rows.test.rows[:20])
    assert torch.equal(again.log_prob(x), model.log_prob(x)) and not again.training
    assert description["model"]["config"] == model.config


def test_the_checkpoint_is_the_best_epoch(tmp_path):
    model, moons = _toy()
    path = tmp_path / "c.safetensors"
    records = train(model, moons, CONFIG, [Checkpointer(path, _description(model), interval=0)])
    again, description = load_checkpoint(path)
    best = max(records, key=lambda r: r.valid)
    assert description["best"] == best._asdict()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_writes_are_spaced_but_the_last_is_made(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "fastgen.train.checkpoint.save_checkpoint", lambda path, state, what: written.append(what["best"]["epoch"])
    )
    model, moons = _toy()
    records = train(model, moons, CONFIG, [Checkpointer(tmp_path / "c", _description(model), interval=1000)])
    best = max(records, key=lambda r: r.valid).epoch
    assert written == ([1] if best == 1 else [1, best])


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    model, moons = _toy()
    save_checkpoint(path, model.state_dict(), _description(model))
    before = path.read_bytes()

    def fail(source, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(io.FileError, match=r"c\.safetensors: cannot be written: Input/output error"):
        train(model, moons, CONFIG, [Checkpointer(path, _description(model), interval=0)])
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def _changed(change):
    model, _ = _toy()
    description = {"format": 2, **_description(model)}
    state = dict(model.state_dict())
    change(description, state)
    return description, state


def _drop_model(description, state):
    del description["model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_model, "expected a model of maf, .*, found None"),
        (lambda d, s: d.update(format=1), "expected a checkpoint of format 2, found 1"),
        (lambda d, s: d["model"].update(name=["maf"]), "expected a model of maf, .*, found "),
        # Sizes that no memory holds, refused before any is taken.
        (lambda d, s: d["model"]["config"].update(transforms=10**30), ".* found: transforms: expected a size"),
        (lambda d, s: d["model"]["config"].update(features=10**30), ".* found: features: expected a size"),
        (lambda d, s: d["model"]["config"].update(hidden_features=[10**9] * 2), ".* found: hidden_features: expected a size"),
        (lambda d, s: d["model"]["config"].update(embedding={"features": 10**9}), ".* found: features: expected a size"),
        (lambda d, s: d["model"].update(name="gan"), "expected a model of maf, .*, found 'gan'"),
        (lambda d, s: d["model"].pop("config"), "expected the numbers and the config of a maf"),
        (lambda d, s: d["model"]["config"].update(features=3), "expected the numbers and the config of a maf"),
        (lambda d, s: d["model"]["config"].update(colour="red"), "expected the numbers and the config of a maf"),
        (lambda d, s: s.popitem(), "expected the numbers and the config of a maf"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, change, message):
    description, state = _changed(change)
    io.save(tmp_path / "c.safetensors", state, description)
    with pytest.raises(io.FileError, match=f"c.safetensors: {message}"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_the_density_is_of_the_original_pixels():
    # log|det| of the preprocessing against autograd's Jacobian, in float64.
    digits = data.digits()
    x = torch.from_numpy(next(digits.held_out("test")).rows[:3]).double()

    def prepared(rows):
        for transform in preprocessing(digits):
            rows, _ = transform.double()(rows)
        return rows

    total = torch.zeros(3, dtype=torch.float64)
    z = x
    for transform in preprocessing(digits):
        z, log_det = transform.double()(z)
        total = total + log_det
    for row in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda r: prepared(r[None])[0], x[row])
        assert total[row].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=1e-9)


@pytest.mark.parametrize("name", ["digits", "patches", "moons"])
def test_prepared_rows_have_mean_zero_and_variance_one(name):
    rows = data.load(name)
    z = torch.from_numpy(rows.epoch(1, 256, 5)[0].read().rows)
    for transform in preprocessing(rows):
        z, _ = transform(z)
    # Fitted to other noise than this: 1258 rows estimate a mean to 0.03, four standard errors.
    assert z.mean(0).abs().max() < 0.12 and (z.std(0) - 1).abs().max() < 0.12
