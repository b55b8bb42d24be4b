"""Runs on files of the user's: a context, weights, yes and no, float64."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fastgen import io
from fastgen.cli import app as cli

SMALL = ["--set", "hidden_features=8", "--set", "epochs=2", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def conditional(tmp_path_factory) -> Path:
    """A MAF of two features given a third, each row with a weight, in float64."""
    folder = tmp_path_factory.mktemp("conditional")
    rng = np.random.default_rng(0)
    age = rng.random(400)
    rows = np.stack([age + rng.normal(size=400), rng.normal(size=400), age, rng.random(400)], axis=1)
    np.savetxt(folder / "x.csv", rows, delimiter=",", header="height,size,age,trust", comments="")
    options = ["--set", "context=age", "--set", "weight=trust", "--set", "dtype=float64"]
    run = ["train", "maf", "--data", str(folder / "x.csv"), *options, "--out", str(folder / "run"), *SMALL]
    assert cli.run(run) == 0
    return folder


def test_eval_reads_the_file_as_training_did(conditional, tmp_path, capsys):
    assert cli.run(["eval", str(conditional / "run"), "--out", str(tmp_path / "rows.npy")]) == 0
    printed = capsys.readouterr().out
    assert "40 test rows of x" in printed and re.search(r"MAF +│ +-\d", printed)
    assert np.load(tmp_path / "rows.npy").shape == (40,)


@pytest.mark.parametrize("given", ["0.5", "rows.npy", "rows.csv"])
def test_samples_given_a_context(conditional, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.full((7, 1), 0.5))
    np.savetxt("rows.csv", np.full((7, 1), 0.5))
    more = ["-n", "7"] if given == "0.5" else []
    assert cli.run(["sample", str(conditional / "run"), "--context", given, *more]) == 0
    samples = np.load("samples.npy")
    assert samples.shape == (7, 2) and samples.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--context: expected 1 numbers such as 1.0,0.5, or a .npy or .csv file with rows of them, found none"),
        (["--context", "1,2"], "found shape (2,)"),
        (["--context", "a"], "found 'a': could not convert string to float"),
        (["--context", "nan"], "--context: expected finite numbers, found nan"),
        (["--context", "gone.npy"], "found 'gone.npy': "),
        (["--context", "rows.npy", "-n", "3"], "-n: expected 7, the rows of --context, found 3"),
        (["--context", "text.npy"], "found 'text.npy': "),
        (["--context", "objects.npy"], "found 'objects.npy': "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_context_that_does_not_fit_is_named(conditional, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.zeros((7, 1)))
    np.save("objects.npy", np.array([{}], dtype=object))
    Path("text.npy").write_text("text")
    assert cli.run(["sample", str(conditional / "run"), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not Path("samples.npy").exists()


def test_a_file_that_is_gone_is_named_and_can_be_replaced(conditional, tmp_path, capsys):
    tensors, description = io.load(conditional / "run" / "checkpoint.safetensors")
    gone = tmp_path / "gone.csv"
    checkpoint = tmp_path / "moved.safetensors"
    io.save(checkpoint, tensors, {**description, "data": {**description["data"], "source": str(gone)}})
    assert cli.run(["eval", str(checkpoint)]) == 2
    assert f"{gone}: expected the data that {checkpoint} was trained on, found no such file" in capsys.readouterr().err
    assert cli.run(["eval", str(checkpoint), "--data", str(conditional / "x.csv")]) == 0


def test_a_context_of_another_width_is_named(conditional, capsys):
    assert cli.run(["eval", str(conditional / "run"), "--set", "context=[]"]) == 2
    assert "x.csv: expected 2 features, as" in capsys.readouterr().err


def test_yes_and_no(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "bits.npz", **{part: rng.random((80, 5)) < 0.3 for part in ("train", "valid", "test")})
    run = ["train", "bernoulli-made", "--data", str(tmp_path / "bits.npz"), "--out", str(tmp_path / "run"), *SMALL]
    assert cli.run([*run, "--tensorboard"]) == 0
    assert "independent features" in capsys.readouterr().out
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert cli.run(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "x.csv")]) == 0
    assert set(np.loadtxt(tmp_path / "x.csv", delimiter=",").ravel()) == {0.0, 1.0}


def test_tensorboard_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.run(["train", "maf", "--data", "moons", "--out", str(tmp_path / "run"), "--tensorboard", *SMALL]) == 2
    assert "--tensorboard: expected the package to be installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_what_the_model_is_of(tmp_path, capsys):
    assert cli.run(["train", "bernoulli-made", "--data", "moons", "--out", str(tmp_path / "run"), *SMALL]) == 2
    err = capsys.readouterr().err
    assert "data: expected rows of 0 and 1 for bernoulli-made, found no levels in moons" in err
    assert not (tmp_path / "run").exists()
