from __future__ import annotations

import json
import os
import time

import pytest
from density import Diagonal, shifted

from fastgen import io
from fastgen.io import FileError
from fastgen.train import CsvLog, Epoch, RunFolder, TrainConfig, read_log, train

CONFIG = TrainConfig(epochs=2, save_every=0.0)


def test_a_new_run_needs_a_folder_without_results(tmp_path):
    run = RunFolder(tmp_path / "a" / "run")
    run.claim()
    train(Diagonal(3), shifted(), CONFIG, [CsvLog(run.log)], run=run)
    with pytest.raises(FileError, match=r"run: expected a folder without results, found log\.csv"):
        run.claim()
    (run.folder / "notes.txt").write_text("mine")
    run.claim(overwrite=True)
    assert [path.name for path in run.folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (lambda run: run.claim(), lambda run: run.locked().__enter__()):
        with pytest.raises(FileError, match="file: expected a folder to write to, found"):
            act(RunFolder(tmp_path / "file"))


def test_two_processes_cannot_have_one_folder(tmp_path):
    run, (reading, writing) = RunFolder(tmp_path), os.pipe()
    child = os.fork()
    if child == 0:
        with run.locked():
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(0)
    assert os.read(reading, 1) == b"x"
    with pytest.raises(FileError, match=f"expected no other run here, found process {child} at work"), run.locked():
        pass
    # However the other one ends, the folder is free.
    os.kill(child, 9)
    os.waitpid(child, 0)
    with run.locked():
        pass


def test_the_config_is_written(tmp_path):
    run = RunFolder(tmp_path)
    run.write_config({"model": {"name": "maf"}, "rate": 0.1})
    assert json.loads(run.config.read_text()) == {"model": {"name": "maf"}, "rate": 0.1}


def test_a_foreign_file_among_the_states_is_named(tmp_path):
    run = RunFolder(tmp_path)
    io.save(run.state(3), {}, {"format": 1, "kind": "recipe"})
    with pytest.raises(FileError, match=r"state-000000003\.safetensors: expected a training state of format 2, found 'recipe'"):
        train(Diagonal(3), shifted(), CONFIG, run=run, resume=True)
    (run.folder / "state-x.safetensors").write_text("")
    assert run.states() == [run.state(3)]


def test_a_full_disk_keeps_the_last_state(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    train(Diagonal(3), shifted(), CONFIG, run=run)
    before = {path: path.read_bytes() for path in run.states()}

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        train(Diagonal(3), shifted(), TrainConfig(epochs=4, save_every=0.0), run=run, resume=True)
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


def test_the_log_is_read_back(tmp_path):
    records = train(Diagonal(3), shifted(), TrainConfig(epochs=3), [CsvLog(tmp_path / "log.csv")])
    assert read_log(tmp_path / "log.csv") == records
    for text, message in (
        ("a,b\n", "expected the columns epoch, step, train, valid, rate, seconds, skipped in line 1"),
        (",".join(Epoch._fields) + "\n1,2,3\n", "expected 7 numbers in line 2"),
        (",".join(Epoch._fields) + "\n1,2,x,3,4,5,6\n", "expected 7 numbers in line 2"),
    ):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(FileError, match=f"log.csv: {message}"):
            read_log(tmp_path / "log.csv")
    with pytest.raises(FileError, match=r"none\.csv: cannot be read: No such file"):
        read_log(tmp_path / "none.csv")
