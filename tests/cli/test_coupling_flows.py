"""The command line on flows of couplings: vectors and images, labels, pictures, temperatures."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from fastgen import io
from fastgen.cli import app as cli
from fastgen.cli.config import build_config
from fastgen.cli.recipes import CONFIGS, recipe

SMALL = ["--set", "transforms=3", "--set", "epochs=2", "--threads", "1", "--device", "cpu"]
TINY = ["--set", "hidden_features=[8]", *SMALL]
LABELS = ["--set", "labels=true", "--set", "embedding={embedding='ClassEmbedding', classes=10, features=4}"]


def _fails(capsys, *arguments: object) -> str:
    """Runs a command that must fail with code 2 and one line on stderr, and gives that line."""
    assert cli.run([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"fastgen: [^\n]+\n", err), err
    return err


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    """A folder with 100 small blots for digits: a row is as bright as its label."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    labels = np.arange(100, dtype=np.uint8) % 10
    images = np.zeros((100, 28, 28), np.uint8)
    images[:, 8:20, 8:20] = 20 * labels[:, None, None] + rng.integers(0, 50, (100, 12, 12))
    (folder / "t10k-images-idx3-ubyte").write_bytes(_idx(images))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(_idx(labels))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mnist) -> dict[str, Path]:
    """Tiny runs: vectors, images and images given labels, and points."""
    folder = tmp_path_factory.mktemp("runs")
    images = [*SMALL, "--set", "hidden_features=[4]", "--set", "shape=[1, 28, 28]", "--set", "mask=none"]
    arguments = {
        "nice": ["nice", "--data", "digits", *TINY],
        "realnvp": ["realnvp", "--data", "mnist", "--data-dir", str(mnist), *TINY],
        "labels": ["realnvp", "--data", "mnist", "--data-dir", str(mnist), *LABELS, *TINY],
        "images": ["realnvp", "--data", "mnist", "--data-dir", str(mnist), *images],
        "points": ["realnvp", "--data", "moons", *TINY],
    }
    for name, given in arguments.items():
        assert cli.run(["train", *given, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in arguments}


NAMES = ("nice", "realnvp", "labels", "images", "points")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_evaluated_as_it_was_trained(runs, capsys, name):
    assert cli.run(["eval", str(runs[name]), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((runs[name] / "result.json").read_text())["nats_per_dim"]
    model = "NICE" if name == "nice" else "REALNVP"
    assert list(found) == [model, "diagonal Gaussian", "full-covariance Gaussian"]
    assert re.search(rf"{model} +│ +{found[model]:.4f}", printed)
    assert ("bits/dim" in printed) == (name != "points")


def test_the_folder_of_the_files_is_remembered(runs, mnist):
    _, description = io.load(runs["labels"] / "checkpoint.safetensors")
    assert description["data"]["dir"] == str(mnist) and description["data"]["labels"] is True
    assert description["model"]["config"]["embedding"] == {"embedding": "ClassEmbedding", "classes": 10, "features": 4}
    assert "standardise_context" not in " ".join(io.load(runs["labels"] / "checkpoint.safetensors")[0])


@pytest.mark.parametrize(("name", "features"), [("nice", 64), ("realnvp", 784), ("images", 784), ("points", 2)])
def test_samples_have_a_row_each(runs, tmp_path, name, features):
    def sampled(*more: str) -> np.ndarray:
        assert cli.run(["sample", str(runs[name]), "-n", "5", "--out", str(tmp_path / "x.npy"), *more]) == 0
        return np.load(tmp_path / "x.npy")

    one, cold, colder = sampled(), sampled("--temperature", "0.5"), sampled("--temperature", "0")
    assert one.shape == (5, features)
    assert np.array_equal(one, sampled("--temperature", "1"))
    assert not np.array_equal(one, cold) and np.abs(one - one[0]).max() > 1
    # Rows of one product, which need not round alike: float32 of numbers up to 256.
    np.testing.assert_allclose(colder, np.repeat(colder[:1], 5, axis=0), rtol=1e-5, atol=1e-3)


def test_samples_of_a_class(runs, tmp_path, capsys):
    out = tmp_path / "x.npy"
    assert cli.run(["sample", str(runs["labels"]), "-n", "3", "--context", "7", "--out", str(out)]) == 0
    assert np.load(out).shape == (3, 784)
    err = _fails(capsys, "sample", runs["labels"], "-n", "3", "--context", "10", "--out", out)
    assert "expected labels from 0 to 9, found 10" in err


def test_a_temperature_of_what_is_no_flow_is_refused(tmp_path, capsys):
    run = ["train", "gaussian-made", "--data", "moons", "--set", "hidden_features=8", "--set", "epochs=1", "--threads", "1"]
    assert cli.run([*run, "--out", str(tmp_path / "run")]) == 0
    for command, message in (
        (["sample", tmp_path / "run", "--temperature", "0.5"], "--temperature: expected a flow, found GAUSSIAN-MADE"),
        (["plot", tmp_path / "run", "--kind", "interpolation"], "--kind interpolation: expected a flow, found GAUSSIAN-MADE"),
        (["plot", tmp_path / "run", "--kind", "reconstruction"], "--kind reconstruction: expected a flow"),
    ):
        assert message in _fails(capsys, *command)


@pytest.mark.parametrize("kind", ["interpolation", "reconstruction"])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_a_flow_lie_beside_the_run(runs, capsys, name, kind):
    capsys.readouterr()
    assert cli.run(["plot", str(runs[name]), "--kind", kind, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert (runs[name] / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert printed.endswith(f"picture: {runs[name] / f'{kind}.png'}\n")
    if kind == "reconstruction":
        error = float(re.search(r"at most (\S+) where x is up to", printed)[1])
        # Three couplings in float32 after two epochs: rounding of grey levels up to 256, spread by the logit near the ends.
        assert error < 0.01


def test_an_interpolation_of_other_rows_is_refused(tmp_path, capsys):
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(0).normal(size=(60, 3)), delimiter=",")
    assert cli.run(["train", "realnvp", "--data", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run"), *TINY]) == 0
    err = _fails(capsys, "plot", tmp_path / "run", "--kind", "interpolation")
    assert "--kind interpolation: expected images or points of two features, found 3 features in x" in err
    assert cli.run(["plot", str(tmp_path / "run"), "--kind", "reconstruction"]) == 0


def test_bad_options_are_named(mnist, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    on_mnist = ["train", "realnvp", "--data", "mnist"]
    here = ["--data-dir", mnist]
    for arguments, message in (
        (on_mnist, "mnist: expected the folder of its files (dir, by --data-dir DIR or --set dir=DIR), found none"),
        ([*on_mnist, "--data-dir", "gone"], "gone: expected a folder with t10k-images-idx3-ubyte"),
        (["train", "realnvp", "--data", "digits", *here], "digits: expected no options but labels, found dir"),
        (["train", "realnvp", "--data", "x.npy", *here], "x.npy: expected no dir, which is for mnist"),
        ([*on_mnist, *here, "--set", "labels=x.idx"], "labels: expected true or false for mnist, found"),
        ([*on_mnist, "--set", "dir=3"], 'expected "none" or a string, found 3'),
        (
            [*on_mnist, *here, "--set", "mask=none", "--set", "shape=[1, 8, 8]"],
            "realnvp: shape: expected that of the rows of mnist, images of [1, 28, 28], found [1, 8, 8]",
        ),
        (["train", "realnvp", "--data", "moons", "--set", "shape=[3, 2, 2]"], "moons, 2 features, found [3, 2, 2]"),
        (["plot", "gone", "--kind", "interpolate"], "'--kind': expected one of summary, interpolation, reconstruction"),
        (["plot", "gone", "--kind", "reconstruction"], "gone/checkpoint.safetensors: expected a checkpoint"),
        (["demo", "--data", "mnist"], "'--data': expected one of digits, patches, moons, rings, spirals, pinwheel, found"),
    ):
        assert message in _fails(capsys, *arguments), arguments
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("model", ["nice", "realnvp"])
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_config_of_a_model_and_a_set_is_found(model, data):
    named = build_config(recipe(model, data))
    assert f"{model}-{data}" in CONFIGS and named.options and (named.model, named.data.source) == (model, data)
    # The config of the digits alone is a MAF's.
    assert named.training != build_config(recipe("maf", data)).training


def test_a_new_run_removes_the_pictures_of_the_old(tmp_path):
    run = ["train", "realnvp", "--data", "moons", "--out", str(tmp_path / "run"), *TINY]
    assert cli.run(run) == 0 and cli.run(["plot", str(tmp_path / "run"), "--kind", "interpolation"]) == 0
    assert (tmp_path / "run" / "interpolation.png").exists()
    assert cli.run([*run, "--overwrite"]) == 0
    assert not (tmp_path / "run" / "interpolation.png").exists()
