"""The command line on planar and radial flows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastgen.cli import app as cli
from fastgen.cli.config import build_config
from fastgen.cli.recipes import recipe

SMALL = ["--set", "transforms=3", "--set", "epochs=2", "--threads", "1", "--device", "cpu"]
RUNS = [("planar", "moons", 2), ("radial", "moons", 2), ("planar", "digits", 64), ("radial", "digits", 64)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("runs")
    found = {(model, source): folder / f"{model}-{source}" for model, source, _ in RUNS}
    for (model, source), out in found.items():
        assert cli.run(["train", model, "--data", source, *SMALL, "--out", str(out)]) == 0
    return found


@pytest.mark.parametrize(("model", "source", "features"), RUNS)
def test_a_run_is_evaluated_and_sampled(runs, tmp_path, model, source, features):
    out = runs[model, source]
    assert cli.run(["eval", str(out), "--device", "cpu"]) == 0
    nats = json.loads((out / "result.json").read_text())["nats_per_dim"]
    assert next(iter(nats)) == model.upper() and all(map(np.isfinite, nats.values()))
    assert cli.run(["sample", str(out), "-n", "5", "--out", str(tmp_path / "x.npy")]) == 0
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (5, features) and np.isfinite(x).all()


@pytest.mark.parametrize("model", ["planar", "radial"])
@pytest.mark.parametrize("source", ["moons", "pinwheel", "digits"])
def test_the_recipe_is_of_the_model(model, source):
    config = build_config(recipe(model, source))
    assert config.options == {"transforms": 32} and config.data.source == source


def test_a_context_is_named(tmp_path, capsys):
    given = ["train", "planar", "--data", "digits", "--set", "labels=true", *SMALL, "--out", str(tmp_path / "run")]
    assert cli.run(given) == 2
    assert "context_features: expected 0 for PlanarFlow" in capsys.readouterr().err
