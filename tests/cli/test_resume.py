"""Runs that go on: what they give is what they would have given at once, and what would lead elsewhere is refused."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgen.cli import app as cli
from fastgen.train import RunFolder

RUN = ["train", "maf", "--data", "moons", "--threads", "1", "--device", "cpu"]
SMALL = ["--set", "hidden_features=8", "--set", "transforms=2", "--set", "batch_size=1000"]


def curves(folder: Path) -> list[list[str]]:
    """The log to the last digit, without the time it took."""
    with open(folder / "log.csv", newline="") as file:
        return [[value for name, value in row.items() if name != "seconds"] for row in csv.DictReader(file)]


def _run(folder: Path, *more: str) -> Path:
    assert cli.run([*RUN, *SMALL, "--out", str(folder), *more]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of four epochs."""
    return _run(tmp_path_factory.mktemp("whole") / "run", "--set", "epochs=4")


@pytest.fixture
def half(tmp_path) -> Path:
    """A run of two epochs."""
    return _run(tmp_path / "run", "--set", "epochs=2")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--resume", "--out", "RUN", "--set", "epochs=4"],
        ["train", "RUN", "--resume", "--set", "epochs=4"],
        [*RUN, *SMALL, "--set", "epochs=4", "--out", "RUN", "--resume"],
    ],
    ids=["out", "first", "same command"],
)
def test_a_longer_run_is_the_run_made_longer(whole, half, command):
    assert cli.run([str(half) if word == "RUN" else word for word in command]) == 0
    assert len(curves(half)) == 4 and curves(half) == curves(whole)
    weights, expected = (load_file(run / "checkpoint.safetensors") for run in (half, whole))
    assert weights.keys() == expected.keys() and all(torch.equal(weights[name], t) for name, t in expected.items())


def test_the_folder_of_a_command_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in (["--set", "epochs=1"], ["--set", "epochs=2", "--resume"]):
        assert cli.run([*RUN, *SMALL, *more]) == 0
    assert len(curves(tmp_path / "runs" / "maf-moons")) == 2


def test_a_run_that_is_over_stays_as_it_is(whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "again")
    assert cli.run(["train", "--resume", "--out", str(again)]) == 0
    assert curves(again) == curves(whole)


def test_a_run_ended_before_its_first_state_begins_anew(whole, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(whole / "run.json", tmp_path / "run")
    assert cli.run(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert curves(tmp_path / "run") == curves(whole)


def test_a_state_cut_short_is_passed_over(whole, half, capsys):
    newest, folder = RunFolder(half).states()[0], RunFolder(half)
    later = folder.state(int(newest.stem.removeprefix("state-")) + 1)
    later.write_bytes(newest.read_bytes()[:-10])
    capsys.readouterr()
    assert cli.run(["train", "--resume", "--out", str(half), "--set", "epochs=4"]) == 0
    assert curves(half) == curves(whole)
    assert re.fullmatch(rf"fastgen: warning: {later}: [^\n]+ is resumed\n", capsys.readouterr().err)


REFUSED = {
    "learning rate": (["--set", "learning_rate=0.5"], "[training] learning_rate: expected 0.001, .* found 0.5"),
    "option": (["--set", "transforms=3"], "[model] transforms: expected 2, .* found 3"),
    "default option": (["--set", "direct=true"], "[model] direct: expected None, .* found True"),
    "seed": (["--seed", "1"], "seed: expected 0, .* found 1"),
    "threads": (["--threads", "2"], "threads: expected 1, .* found 2"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_leads_elsewhere_is_refused(whole, capsys, changes, message):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert cli.run(["train", "--resume", "--out", str(whole), *changes]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(f"fastgen: --resume: {message.replace('[', chr(92) + '[')}\n", err), err
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_a_cosine_keeps_its_length(tmp_path, capsys):
    run = _run(tmp_path / "run", "--set", "epochs=1", "--set", "schedule=cosine")
    assert cli.run(["train", "--resume", "--out", str(run), "--set", "epochs=2"]) == 2
    assert "--resume: [training] epochs: expected 1, with which the run" in capsys.readouterr().err


def test_other_rows_in_the_file_are_refused(tmp_path, capsys):
    file = tmp_path / "x.csv"
    file.write_text("\n".join(f"{i},{i % 7}" for i in range(100)))
    run = ["train", "maf", "--data", str(file), *SMALL, "--set", "epochs=1", "--out", str(tmp_path / "run")]
    assert cli.run(run) == 0
    file.write_text("\n".join(f"{i},{i % 5}" for i in range(100)))
    capsys.readouterr()
    assert cli.run([*run, "--resume"]) == 2
    assert "data: expected that of the run that is resumed" in capsys.readouterr().err
