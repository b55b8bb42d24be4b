"""Whatever happens to a run: it is said in one line, nothing is left half-written, and the run goes on as if nothing had."""

from __future__ import annotations

import csv
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fastgen
from fastgen import io
from fastgen.cli import app as cli
from fastgen.train import RunFolder

# A good part of a second an epoch, so that the second one is under way when the first is seen in the log.
EPOCHS = 4
RUN = ["train", "maf", "--data", "moons", "--threads", "1", "--device", "cpu"]
SETTINGS = ["hidden_features=8", "transforms=2", "batch_size=64", f"epochs={EPOCHS}", "save_every=0.1"]
ARGUMENTS = [*RUN, *(word for setting in SETTINGS for word in ("--set", setting))]
SMALL = [*RUN, "--set", "hidden_features=8", "--set", "epochs=1"]
PATIENCE = 120.0


def curves(folder: Path) -> list[list[str]]:
    """The log to the last digit, without the time it took."""
    with open(folder / "log.csv", newline="") as file:
        return [[value for name, value in row.items() if name != "seconds"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert cli.run([*ARGUMENTS, "--out", str(folder)]) == 0
    return folder


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The run as a process, in its second epoch or later."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgen", *ARGUMENTS, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(fastgen.__file__).parents[1],
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not ((folder / "log.csv").exists() and curves(folder)):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended or hangs before its first epoch"
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def _goes_on_as(whole: Path, folder: Path) -> None:
    """Resumes a run, which then has the log and the weights of `whole`, to the bit."""
    assert cli.run(["train", "--resume", "--out", str(folder)]) == 0
    assert curves(folder) == curves(whole)
    (expected, _), (found, _) = (io.load(RunFolder(run).checkpoint) for run in (whole, folder))
    assert expected.keys() == found.keys() and all(torch.equal(found[name], t) for name, t in expected.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(whole, tmp_path, number):
    folder = tmp_path / "a run"
    with running(folder) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    hint = f"go on with: fastgen train --resume --out '{folder}'"
    assert re.fullmatch(rf"fastgen: {name} after step \d+; its state is saved, {re.escape(hint)}\n", err)
    assert 1 <= len(curves(folder)) < EPOCHS and RunFolder(folder).states()
    _goes_on_as(whole, folder)


def test_a_run_that_is_killed_goes_on_and_is_alone_while_it_lives(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    with running(folder) as process:
        for more in (["--overwrite"], ["--resume"]):
            assert cli.run([*ARGUMENTS, "--out", str(folder), *more]) == 2
            assert f"expected no other run here, found process {process.pid} at work" in capsys.readouterr().err
        process.kill()
        process.wait()
    assert len(curves(folder)) < EPOCHS
    _goes_on_as(whole, folder)
    assert [path.name for path in folder.glob("*.tmp*")] == []


def _fails(capsys, *arguments: object) -> str:
    """Runs a command that must fail as the user's error, with one line on stderr, and gives that line."""
    capsys.readouterr()
    assert cli.run([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"fastgen: [^\n]+\n", err), err
    return err


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "", "x"])
def test_a_number_that_is_none_is_named_with_its_place(tmp_path, capsys, cell):
    file = tmp_path / "x.csv"
    file.write_text("\n".join(["age,size", *(f"{i},{cell if i == 30 else i}" for i in range(50))]))
    err = _fails(capsys, "train", "maf", "--data", file, "--out", tmp_path / "run")
    assert "x.csv: expected" in err and "(line 32, column 'size')" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.npy", "gone.npy: expected"), ("pickled.npy", "pickled.npy: expected"), ("short.npy", "short.npy: expected")],
)
def test_a_file_that_is_no_data_is_named(tmp_path, capsys, name, message):
    np.save(tmp_path / "pickled.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    np.save(tmp_path / "short.npy", np.zeros((100, 2)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-1])
    assert message in _fails(capsys, "train", "maf", "--data", tmp_path / name, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_of_a_config_is_named(tmp_path, capsys):
    config = tmp_path / "mine.toml"
    config.write_text('[model]\nname = "maf"\nlayers = 3\n[data]\nsource = "moons"\n')
    err = _fails(capsys, "train", config, "--out", tmp_path / "run")
    assert f"{config}: [model] layers: unknown key; expected one of name, " in err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder is read-only to root")
def test_a_read_only_folder_is_named(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert f"{tmp_path / 'run'}: expected a folder to write to" in _fails(capsys, *SMALL, "--out", tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named(capsys):
    assert "/proc/run: expected a folder to write to" in _fails(capsys, *SMALL, "--out", "/proc/run")


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: what is written beyond the size fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_whole(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.run([*SMALL, "--out", str(folder)]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with _files_of_at_most(2000):
        err = _fails(capsys, "train", "--resume", "--out", folder, "--set", "epochs=2")
    assert "cannot be written: File too large" in err
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == after.keys() and before["checkpoint.safetensors"] == after["checkpoint.safetensors"]
    assert cli.run(["train", "--resume", "--out", str(folder), "--set", "epochs=2"]) == 0


def test_a_foreign_checkpoint_is_named(tmp_path, capsys):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("weights")
    for name, message in (("other", "expected a fastgen description"), ("text", "expected a whole safetensors file")):
        for command in ("eval", "sample"):
            assert f"{name}.safetensors: {message}" in _fails(capsys, command, tmp_path / f"{name}.safetensors")


def test_an_altered_checkpoint_is_named(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.run([*SMALL, "--out", str(folder)]) == 0
    checkpoint = folder / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 0x40
    checkpoint.write_bytes(content)
    assert "checkpoint.safetensors: expected" in _fails(capsys, "eval", folder)
