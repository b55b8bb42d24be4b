"""The command line on variational autoencoders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastgen import io
from fastgen.cli import app as cli
from fastgen.cli.config import build_config
from fastgen.cli.recipes import CONFIGS, named

SMALL = ["--set", "hidden_features=[8]", "--set", "epochs=2", "--threads", "1", "--device", "cpu"]
RUNS = {
    "vae": ["vae", "--data", "digits", "--set", "latent_features=2"],
    "planar": ["vae", "--data", "digits", "--set", "posterior=planar", "--set", "transforms=20"],
    "levels": ["vae", "--data", "digits", "--set", "likelihood=discretized_logistic", "--set", "posterior=iaf"],
    "noisy": ["vae", "--data", "digits", "--set", "likelihood=gaussian", "--set", "log_scale=feature"],
    "iwae": ["iwae", "--data", "digits", "--set", "samples=3", "--set", "doubly_reparameterised=true"],
    "points": ["vae", "--data", "moons", "--set", "latent_features=2", "--set", "posterior=radial", "--set", "batch_size=2048"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, given in RUNS.items():
        assert cli.run(["train", *given, *SMALL, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_evaluated_as_it_was_trained(runs, capsys, name):
    capsys.readouterr()
    assert cli.run(["eval", str(runs[name]), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    model = "IWAE" if name == "iwae" else "VAE"
    found = json.loads((runs[name] / "result.json").read_text())["nats_per_dim"]
    assert list(found)[:2] == [model, f"{model}, 100 samples"]
    for key, nats in found.items():
        assert re.search(rf"{key} +│ +{nats:.4f}", printed)
    # An estimate from 100 samples is above the bound of few.
    assert found[f"{model}, 100 samples"] > found[model]
    # The levels themselves, and densities of them with noise, have bits; ones and zeros drawn of them have not.
    assert ("bits/dim" in printed) == (name in ("levels", "noisy"))


def test_more_samples_are_more(runs, capsys):
    def estimate(samples: int) -> float:
        capsys.readouterr()
        assert cli.run(["eval", str(runs["planar"]), "--samples", str(samples), "--device", "cpu"]) == 0
        return float(re.search(rf"VAE, {samples} samples +│ +(\S+)", capsys.readouterr().out)[1])

    assert estimate(1) < estimate(30)


@pytest.mark.parametrize(("name", "highest"), [("vae", 1), ("iwae", 1), ("levels", 16), ("noisy", 17), ("points", None)])
def test_samples_are_in_the_units_of_the_data(runs, tmp_path, name, highest):
    assert cli.run(["sample", str(runs[name]), "-n", "50", "--out", str(tmp_path / "x.npy")]) == 0
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (50, 2 if name == "points" else 64) and np.isfinite(x).all()
    if highest is not None:
        assert x.min() >= 0 and x.max() <= highest and (x.max() > highest / 2)
    assert np.array_equal(x, x.round()) == (name in ("vae", "iwae", "levels"))


@pytest.mark.parametrize("name", ["vae", "levels", "points"])
def test_pictures(runs, capsys, name):
    capsys.readouterr()
    for kind in ("samples", "reconstruction", *(("latent",) if name != "levels" else ())):
        assert cli.run(["plot", str(runs[name]), "--kind", kind]) == 0
        assert (runs[name] / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
        printed = capsys.readouterr().out
        if kind == "latent":
            assert ("359 rows, 10 classes" in printed) == (name == "vae")
        elif kind == "samples":
            assert ("4000" if name == "points" else "64") + " means of p(x | z), z of the prior" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "RUNS/planar", "--kind", "latent"], "--kind latent: expected latent_features 2, found 10"),
        (["plot", "RUNS/vae", "--kind", "interpolation"], "--kind interpolation: expected a flow, found VAE"),
        (["sample", "RUNS/vae", "--temperature", "0.5"], "--temperature: expected a flow, found VAE"),
        (["train", "vae", "--data", "digits", "--set", "posterior=maf"], "vae: posterior: expected one of gaussian, planar"),
        (["train", "vae", "--data", "digits", "--set", "labels=true"], "vae: data: expected rows without a context for vae"),
        (["train", "vae", "--data", "moons", "--set", "likelihood=bernoulli"], "expected numbers from 0 to 1 for VAE"),
        (["train", "iwae", "--data", "moons", "--set", "likelihood=discretized_logistic"], "expected rows of levels"),
        (["train", "iwae", "--data", "digits", "--set", "free_bits=0.1"], "--set free_bits: expected a known key"),
        (["train", "vae", "--data", "digits", "--set", "levels=3"], "found levels"),
    ],
)
def test_what_cannot_be_is_told(runs, tmp_path, capsys, arguments, message):
    given = [str(a).replace("RUNS", str(next(iter(runs.values())).parent)) for a in arguments]
    if given[0] == "train":
        given += ["--out", str(tmp_path / "run"), "--device", "cpu"]
    assert cli.run(given) == 2
    err = capsys.readouterr().err
    assert err.startswith("fastgen: ") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "run").exists()


def test_checkpoints_with_sizes_that_nothing_bears_out_are_refused(runs, tmp_path, capsys):
    state, description = io.load(runs["planar"] / "checkpoint.safetensors")
    assert description["model"]["config"]["transforms"] == 20
    for key, size in (("transforms", 10**9), ("latent_features", 10**9)):
        description["model"]["config"] |= {key: size}
        io.save(tmp_path / "c.safetensors", state, description)
        assert cli.run(["eval", str(tmp_path / "c.safetensors")]) == 2
        assert f"{key}: expected a size" in capsys.readouterr().err
        description["model"]["config"] |= {"transforms": 20, "latent_features": 10}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith(("vae-", "iwae-"))])
def test_the_configs_are_configs(name):
    config = build_config(named(name, None))
    assert f"{config.model}-{config.data.source}" == name
