from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgen import io
from fastgen.bench import timing
from fastgen.cli import app as cli
from fastgen.cli import distill
from fastgen.train import Observer
from fastgen.train.checkpoint import load_checkpoint

PLACE = ["--threads", "1", "--device", "cpu"]
TINY = ["--set", "hidden_features=8", "--set", "transforms=2", "--set", "epochs=2", *PLACE]
STUDENT = [*TINY, "--set", "rows=300", "--set", "batch_size=64"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Speed is measured, but not well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(distill, "TIMING_SECONDS", 1e-3)
        for name in ("_SAMPLE_SECONDS", "_WARM_UP_SECONDS"):
            patched.setattr(timing, name, 1e-3)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """The folder of a tiny run on images."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    assert cli.run(["train", "maf", "--data", "digits", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(scope="module")
def distilled(teacher, tmp_path_factory) -> Path:
    """The folder of its student."""
    folder = tmp_path_factory.mktemp("student") / "run"
    assert cli.run(["train", "distill", "--teacher", str(teacher), "--out", str(folder), *STUDENT]) == 0
    return folder


def _fails(capsys, code: int, *arguments: object) -> str:
    """Runs a command that must fail, with one line on stderr, and gives that line."""
    assert cli.run([str(a) for a in arguments]) == code
    err = capsys.readouterr().err
    assert re.fullmatch(r"fastgen: [^\n]+\n", err), err
    return err


def test_result_says_how_far_and_how_fast(distilled):
    result = json.loads((distilled / "result.json").read_text())
    assert list(result["nats_per_row"])[:2] == ["student IAF", "teacher MAF"]
    kl = result["kl_student_teacher"]
    assert kl["nats_per_row"] > 0 and kl["standard_error"] > 0 and kl["rows"] == 8192
    for speed in result["samples_per_second"].values():
        assert list(speed) == ["256", "1"] and all(found > 0 for found in speed.values())
    assert result["teacher"]["rows"] == 300 and result["data"]["source"] == "digits"
    assert (distilled / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_the_likelihoods_are_those_that_eval_finds(teacher, distilled, capsys):
    nats = json.loads((distilled / "result.json").read_text())["nats_per_dim"]
    for folder, name, whose in ((teacher, "MAF", "teacher MAF"), (distilled, "IAF", "student IAF")):
        assert cli.run(["eval", str(folder), *PLACE]) == 0
        assert re.search(rf"{name} +│ +{nats[whose]:.4f}", capsys.readouterr().out)


def test_the_checkpoint_is_the_student_and_samples_are_pixels(distilled, tmp_path):
    student, description = load_checkpoint(distilled / "checkpoint.safetensors")
    assert description["model"]["name"] == "iaf" and [type(t).__name__ for t in student.transform][:3] == [
        "UnitInterval",
        "Logit",
        "Standardise",
    ]
    assert cli.run(["sample", str(distilled), "-n", "20", "--out", str(tmp_path / "x.npy")]) == 0
    rows = np.load(tmp_path / "x.npy")
    assert rows.shape == (20, 64) and rows.min() >= 0 and rows.max() <= 17


def test_plot_draws_the_run_again(distilled, tmp_path):
    assert cli.run(["plot", str(distilled), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_printed(teacher, tmp_path, capsys):
    checkpoint = teacher / "checkpoint.safetensors"
    assert cli.run(["train", "distill", "--teacher", str(checkpoint), "--out", str(tmp_path / "run"), *STUDENT]) == 0
    printed = capsys.readouterr().out
    assert f"student of {checkpoint}, 300 rows of noise an epoch" in printed
    for part in ("student IAF", "teacher MAF", "full-covariance Gaussian", "KL(student || teacher)", "256 at a time"):
        assert part in printed


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(teacher, distilled, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    class Stop(Observer):
        count = 0

        def step(self) -> None:
            self.count += 1
            if self.count == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("fastgen.cli.train._tensorboard", lambda run: Stop())
        run = ["train", "distill", "--teacher", str(teacher), "--out", str(folder), *STUDENT]
        assert cli.run([*run, "--tensorboard"]) == 143
    assert "go on with: fastgen train --resume" in capsys.readouterr().err
    assert cli.run(["train", "--resume", "--out", str(folder)]) == 0
    (state, _), (expected, _) = (io.load(f / "checkpoint.safetensors") for f in (folder, distilled))
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_config_of_ones_own(teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = f"""
    [model]
    name = "iaf"
    transforms = 1
    hidden_features = [8]
    [teacher]
    run = "{teacher}"
    rows = 100
    [training]
    epochs = 1
    """
    (tmp_path / "own.toml").write_text(config)
    assert cli.run(["train", "own.toml", *PLACE]) == 0
    assert json.loads((tmp_path / "runs" / "distill-digits" / "run.json").read_text())["teacher"]["run"] == str(teacher)


def test_bad_options_are_named_and_leave_nothing(teacher, distilled, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    learn = ["train", "distill", "--teacher", teacher]
    for arguments, message in (
        (["train", "distill"], "--teacher: expected the folder of a run, or a checkpoint of one, found none"),
        (["train", "distill", "--data", "digits"], "--teacher: expected the folder of a run"),
        (["train", "distill", "--teacher", "gone"], "gone: expected a checkpoint, found no such file"),
        (
            ["train", "maf", "--teacher", teacher],
            "--teacher: expected distill to train, or a config with a [teacher], found maf",
        ),
        ([*learn, "--set", "model.name=maf"], "--teacher: expected model iaf for a student, found maf"),
        ([*learn, "--set", "rows=0"], "--set rows=0: [teacher] rows: expected 1 to 2147483648, found 0"),
        ([*learn, "--set", "batch_norm=true"], "iaf: student: expected no batch normalisation"),
        ([*learn, "--data", "moons"], "moons: expected 64 features, as"),
        ([*learn, "--set", "transforms=0"], "iaf: transforms: expected at least 1, found 0"),
    ):
        assert message in _fails(capsys, 2, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_is_none_is_named(tmp_path, capsys):
    folder = tmp_path / "made"
    assert cli.run(["train", "gaussian-made", "--data", "moons", "--out", str(folder), "--set", "epochs=1", *PLACE]) == 0
    err = _fails(capsys, 2, "train", "distill", "--teacher", folder, "--out", tmp_path / "x", *PLACE)
    assert "checkpoint.safetensors: teacher: expected a flow such as a MAF, found GaussianMADE" in err


def test_no_other_teacher_on_resuming(teacher, distilled, tmp_path, capsys):
    other = shutil.copytree(teacher, tmp_path / "other")
    resume = ["train", "distill", "--resume", "--out", distilled, *STUDENT]
    err = _fails(capsys, 2, *resume, "--teacher", other)
    assert f"--resume: [teacher] run: expected '{teacher}', with which the run in {distilled} began, found '{other}'" in err
