"""Config files and assignments, whole and broken: every fault is named with its place, and none is more than that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen.cli.errors import UserError
from fastgen.cli.settings import LARGEST, Setting, flat, parse, read_json, read_toml
from fastgen.io import FileError

KNOWN = ["seed", "model.name", "model.seed", "training.seed", "training.learning_rate", "training.epochs"]


def test_a_file_is_read_with_its_name(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('seed = 3\n[model]\nname = "maf"\nbase = { kind = "normal" }\n[training]\nlearning_rate = 1e-4\n')
    assert read_toml(path) == {
        "seed": Setting(3, str(path)),
        "model.name": Setting("maf", str(path)),
        "model.base": Setting({"kind": "normal"}, str(path)),
        "training.learning_rate": Setting(1e-4, str(path)),
    }


def test_json_is_read_as_toml_is(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fastgen": "1.0", "seed": 3, "model": {"name": "maf"}}))
    assert read_json(path) == {"seed": Setting(3, str(path)), "model.name": Setting("maf", str(path))}


BROKEN = {
    "": "[model]\nname = maf\n",
    "line": "[model\n",
    "twice": "[model]\n[model]\n",
    "digits": f"seed = {'1' * 5000}\n",
    "deep": f"seed = {'[' * 5000}\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_toml_is_named(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(FileError, match=r"a\.toml: expected TOML, found: "):
        read_toml(path)


def test_the_line_is_named(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[model]\n\nname = maf\n")
    with pytest.raises(FileError, match="line 3"):
        read_toml(path)


@pytest.mark.parametrize("read", [read_toml, read_json])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    large = tmp_path / "large"
    large.write_bytes(b" " * (LARGEST + 1))
    other = tmp_path / "other"
    other.write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "gone", "No such file"),
        (tmp_path, "Is a directory"),
        (large, "more"),
        (other, "found: "),
    ):
        with pytest.raises(FileError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: expected")


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000], ids=["list", "number", "open", "deep"])
def test_what_is_no_run_json_is_named(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(FileError, match=r"run\.json: expected "):
        read_json(path)


@given(content=st.binary(max_size=60))
def test_any_bytes_are_settings_or_a_named_fault(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    for read in (read_toml, read_json):
        try:
            assert isinstance(read(path), dict)
        except (FileError, UserError) as error:
            assert str(error).startswith(str(path))


UNKNOWN = {
    "traning": ({"traning": {"epochs": 2}}, r"a: traning: unknown table; did you mean training\?"),
    "outside": ({"sed": 2}, r"a: sed: unknown key outside the tables; did you mean seed\?"),
    "no table": ({"model": "maf"}, r"a: expected a table \[model\], found model = 'maf'"),
    "nothing like it": ({"zzz": 1}, r"expected one of model, data, training, teacher, seed, threads, device"),
}


@pytest.mark.parametrize(("tables", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_tables_are_named(tables, message):
    with pytest.raises(UserError, match=message):
        flat(tables, "a")


ASSIGNED = {
    "training.learning_rate=1e-4": ("training.learning_rate", 1e-4),
    "learning_rate = 1e-4": ("training.learning_rate", 1e-4),
    "seed=4": ("seed", 4),
    "training.seed=4": ("training.seed", 4),
    "name=maf": ("model.name", "maf"),
    'name="maf"': ("model.name", "maf"),
    "name=": ("model.name", ""),
    "name=a=b": ("model.name", "a=b"),
    "epochs=[1, 2]": ("training.epochs", [1, 2]),
    "epochs=[1": ("training.epochs", "[1"),
    "epochs=1\nother = 2": ("training.epochs", "1\nother = 2"),
    "model.anything=true": ("model.anything", True),
}


@pytest.mark.parametrize("text", ASSIGNED)
def test_assignments(text):
    key, value = ASSIGNED[text]
    assert parse([text], KNOWN) == {key: Setting(value, f"--set {text}")}


def test_the_last_assignment_counts():
    assert parse(["epochs=1", "training.epochs=2"], KNOWN)["training.epochs"].value == 2


@pytest.mark.parametrize(
    ("text", "known", "message"),
    [
        ("epochs", KNOWN, "--set: expected key=value, found 'epochs'"),
        ("epoch=2", KNOWN, r"--set epoch: expected a known key; did you mean epochs\?"),
        ("seed=2", KNOWN[1:], "--set seed: expected a key of one table, found model.seed and training.seed"),
    ],
)
def test_assignments_that_name_no_key(text, known, message):
    with pytest.raises(UserError, match=message):
        parse([text], known)
