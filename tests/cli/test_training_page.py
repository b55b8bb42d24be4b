"""docs/training.md says what is so: its keys and defaults are those of the code, and its examples run."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from fastgen.cli.config import build_config
from fastgen.cli.keys import TOP, known
from fastgen.cli.settings import read_toml
from fastgen.cli.values import NONE
from fastgen.data import FileOptions
from fastgen.train import TrainConfig
from fastgen.train.loop import RESUMABLE
from fastgen.train.models import MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def _table(heading: str) -> dict[str, str]:
    """The first column of the table under a heading, and the second."""
    section = PAGE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \|\s*(.*?)\s*\|", section, re.MULTILINE))


@pytest.mark.parametrize(("heading", "kind"), [("### [data]", FileOptions), ("### [training]", TrainConfig)])
def test_every_key_is_told_with_its_default(heading, kind):
    told = _table(heading)
    if kind is FileOptions:
        assert told.pop("source") == "" and told.pop("seed") == "`0`" and told.pop("dir") == '`"none"`'
    defaults = {field.name: NONE if field.default is None else field.default for field in fields(kind)}
    assert told == {name: f"`{json.dumps(default)}`" for name, default in defaults.items()}


def test_every_option_of_every_model_is_told():
    options = {key.removeprefix("model.") for name in MODELS for key in known(name) if key.startswith("model.")}
    told = set(_table("### [model]"))
    assert options <= told
    # What is told of models that are not there is nothing to rely on.
    if "maf-mog" in MODELS:
        assert told == options
    assert all(f"`{name}`" in PAGE for name in MODELS)


def test_the_keys_outside_the_tables_are_told():
    assert set(_table("## Config")) >= set(TOP)


def test_what_may_change_is_told():
    section = PAGE.split("`--set` may change", 1)[1].split(".", 1)[0]
    assert tuple(re.findall(r"`(\w+)`", section)) == RESUMABLE


def test_the_example_config_is_one(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    assert build_config(read_toml(path)).training.weight_decay == 1.0


def test_the_example_in_python_runs(capsys):
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(example, {})
    assert float(capsys.readouterr().out) < 0
