"""Configs: from settings and back, what is refused, and that those that come with the package are right."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen import data, nn
from fastgen.cli import recipes
from fastgen.cli.config import RunConfig, build_config
from fastgen.cli.errors import UserError
from fastgen.cli.keys import known
from fastgen.cli.settings import Setting, Settings, flat, read_toml
from fastgen.data import FileOptions
from fastgen.models import VAE
from fastgen.train import TrainConfig
from fastgen.train.models import MODELS, build


def _settings(**values: object) -> Settings:
    """Settings of `model__name` and the like, from a file a.toml, with a model and a data set."""
    full = {"model.name": "maf", "data.source": "moons", **{k.replace("__", "."): v for k, v in values.items()}}
    return {key: Setting(value, "a.toml") for key, value in full.items()}


def test_a_config_of_nothing_has_the_defaults():
    config = build_config(_settings())
    assert config == RunConfig("maf", config.data) and config.data.source == "moons" and config.training == TrainConfig()


def test_values_reach_their_place(tmp_path):
    file = tmp_path / "x.npy"
    given = {
        "seed": 7,
        "model__hidden_features": [8, 8],
        "data__source": str(file),
        "data__context": "age",
        "training__clip_norm": "none",
        "training__learning_rate": 1,
        "training__seed": 9,
    }
    config = build_config(_settings(**given))
    assert config.options == {"hidden_features": (8, 8)}
    assert config.data.source == str(file) and config.data.file == FileOptions(context=("age",))
    assert config.training == TrainConfig(clip_norm=None, learning_rate=1.0, seed=9)
    # The seeds that are not set follow the one of the run.
    assert (config.seed, config.data.seed) == (7, 7)


def test_a_relative_file_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").touch()
    config = build_config(_settings(data__source="x.npy", data__labels="y.npy"))
    assert (config.data.source, config.data.file.labels) == (str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": 3, "threads": 2, "device": "cpu", "data__seed": 4, "training__seed": 5},
        {"model__scale_map": {"kind": "tanh", "c": 2.0}, "model__order": "random", "model__transforms": 3},
        {"data__image_shape": [8, 8], "data__columns": [0, "a"], "data__mapped": True, "data__weight": -1},
        {"training__clip_norm": "none", "training__ema": 0.99, "training__seconds": 5},
    ],
    ids=lambda given: " ".join(given) or "nothing",
)
def test_json_holds_all_of_a_config(given):
    config = build_config(_settings(**given))
    assert build_config(flat(json.loads(json.dumps(config.to_json())), "run.json")) == config


REFUSED = {
    "no model": ({"model.name": None}, "[model] name: expected one of maf"),
    "unknown model": ({"model.name": "gan"}, "a.toml: [model] name: expected one of maf"),
    "model of a list": ({"model.name": ["maf"]}, "a.toml: [model] name: expected one of maf"),
    "no data": ({"data.source": None}, "--data: expected a file or one of digits, patches"),
    "near key": ({"training.learning_rte": 1}, "a.toml: [training] learning_rte: unknown key; did you mean learning_rate?"),
    "other table": ({"model.epochs": 1}, "a.toml: [model] epochs: unknown key; did you mean [training] epochs?"),
    "unknown key": ({"data.zzz": 1}, "a.toml: [data] zzz: unknown key; expected one of source, seed, context"),
    "given by build": ({"model.features": 2}, "a.toml: [model] features: unknown key"),
    "unknown top": ({"sed": 2}, "a.toml: sed: unknown key; did you mean seed?"),
    "type": ({"training.epochs": "many"}, "a.toml: [training] epochs: expected a whole number, found 'many'"),
    "type of an option": ({"model.hidden_features": ["a"]}, "a.toml: [model] hidden_features: expected a list"),
    "range": ({"training.epochs": 0}, "a.toml: [training] epochs: expected at least 1, found 0"),
    "word": ({"training.schedule": "cosinus"}, "a.toml: [training] schedule: expected one of constant, cosine"),
    "fraction": ({"data.valid": 2.0}, "a.toml: [data] valid: expected a fraction"),
    "seed": ({"seed": -1}, "a.toml: seed: expected 0 to 9223372036854775807, found -1"),
    "data seed": ({"data.seed": 2**63}, "a.toml: [data] seed: expected 0 to"),
    "threads": ({"threads": 0}, "a.toml: threads: expected 1 to 4096, found 0"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named_with_its_place(changes, message):
    settings = {**_settings(), **{key: Setting(value, "a.toml") for key, value in changes.items()}}
    settings = {key: setting for key, setting in settings.items() if setting.value is not None}
    with pytest.raises(UserError) as caught:
        build_config(settings)
    assert str(caught.value).startswith(message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(known("maf"))), value=VALUES)
def test_any_value_of_any_key_is_a_config_or_a_named_fault(key, value):
    settings = {**_settings(), key: Setting(value, "a.toml")}
    try:
        config = build_config(settings)
    except UserError as error:
        assert "a.toml" in str(error) or "[data]" in str(error)
    else:
        assert build_config(flat(json.loads(json.dumps(config.to_json())), "run.json")) == config


@pytest.mark.parametrize("name", MODELS)
def test_every_option_of_a_model_is_one_it_takes(name):
    binary = data.Part((np.random.default_rng(0).random((50, 4)) < 0.5).astype(np.float32))
    source = data.Dataset("bits", 0, binary, binary, binary, levels=2)
    own = {**_defaults(nn.MADE), **_defaults(VAE), **_defaults(MODELS[name])}
    options = [key.removeprefix("model.") for key in known(name) if key.startswith("model.") and key != "model.name"]
    characteristic = {"nice": "mask", "realnvp": "mask", "vae": "latent_features", "iwae": "latent_features"}
    without_networks = {"fvsbn": "order", "planar": "transforms", "radial": "transforms"}
    networks = () if name in without_networks else ("hidden_features", "activation")
    assert {{**characteristic, **without_networks}.get(name, "order"), *networks} <= set(options)
    for option in options:
        build(name, source, **{option: own[option]})


def _defaults(kind):
    return {p.name: p.default for p in inspect.signature(kind).parameters.values()}


@pytest.mark.parametrize("name", recipes.CONFIGS)
def test_configs_that_come_with_the_package_are_right(name):
    settings = read_toml(recipes.CONFIGS[name])
    given = settings.get("data.source")
    assert given is None or given.value in data.DATASETS
    teacher = {"teacher.run": Setting("a run", "--teacher")} if any(key.startswith("teacher.") for key in settings) else {}
    assert build_config({"data.source": Setting("a file", "--data"), **teacher, **settings}).model in MODELS


@pytest.mark.parametrize("source", data.DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_recipe_for_every_set(model, source):
    config = build_config(recipes.recipe(model, source))
    assert (config.model, config.data.source) == (model, source)


def test_a_file_has_no_recipe_but_the_defaults():
    config = build_config(recipes.recipe("maf", "rows.npy"))
    assert config.options == {} and config.training == TrainConfig()
