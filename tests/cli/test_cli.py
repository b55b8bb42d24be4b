from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fastgen
from fastgen import backends, io
from fastgen.cli import app as cli

SMALL = ["--set", "hidden_features=8", "--set", "transforms=2", "--set", "epochs=2"]
TINY = [*SMALL, "--threads", "1", "--device", "cpu"]
FILES = ["checkpoint.safetensors", "log.csv", "result.json", "run.json", "summary.png"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("run") / "moons"
    assert cli.run(["train", "maf", "--data", "moons", "--out", str(folder), *TINY]) == 0
    return folder


def _fails(capsys, code: int, *arguments: object) -> str:
    """Runs a command that must fail, with one line on stderr, and gives that line."""
    assert cli.run([str(a) for a in arguments]) == code
    err = capsys.readouterr().err
    assert re.fullmatch(r"fastgen: [^\n]+\n", err), err
    return err


def test_train_writes_what_it_says(trained):
    names = sorted(p.name for p in trained.iterdir() if not p.name.startswith("."))
    assert [name for name in names if not name.startswith("state-")] == FILES and names != FILES
    _, description = io.load(trained / "checkpoint.safetensors")
    assert description["data"]["source"] == "moons" and description["training"]["epochs"] == 2
    with open(trained / "log.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    result = json.loads((trained / "result.json").read_text())
    assert list(result["nats_per_dim"]) == ["MAF", "diagonal Gaussian", "full-covariance Gaussian"]
    assert set(result["bits_per_dim"].values()) == {None}


def test_eval_prints_what_train_found(trained, capsys):
    assert cli.run(["eval", str(trained / "checkpoint.safetensors"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for name, nats in json.loads((trained / "result.json").read_text())["nats_per_dim"].items():
        assert re.search(rf"{name} +│ +{nats:.4f}", printed)


def test_eval_on_another_set(trained, capsys):
    assert cli.run(["eval", str(trained), "--data", "rings"]) == 0
    assert "test rows of rings" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["rows.npy", "rows.csv"])
def test_eval_writes_every_row(trained, tmp_path, capsys, name):
    out = tmp_path / name
    assert cli.run(["eval", str(trained), "--part", "valid", "--out", str(out)]) == 0
    rows = np.load(out) if out.suffix == ".npy" else np.loadtxt(out)
    assert rows.shape == (2000,) and rows.dtype == np.float64
    found = re.search(r"MAF +│ +(\S+) │ +(\S+) │ +(\S+)", capsys.readouterr().out)
    error = rows.std(ddof=1) / len(rows) ** 0.5
    assert found and found.groups() == (f"{rows.mean() / 2:.4f}", f"{rows.mean():.3f}", f"{error:.3f}")


def test_samples_are_the_same_for_a_seed(trained, tmp_path):
    def sampled(name: str, *more: str) -> np.ndarray:
        out = tmp_path / name
        assert cli.run(["sample", str(trained / "checkpoint.safetensors"), "-n", "5", "--out", str(out), *more]) == 0
        return np.load(out, allow_pickle=False)

    one, again, other = sampled("a.npy"), sampled("b.npy"), sampled("c.npy", "--seed", "1")
    assert one.shape == (5, 2) and one.dtype == np.float32
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_samples_as_a_picture(trained, tmp_path):
    assert cli.run(["sample", str(trained / "checkpoint.safetensors"), "--out", str(tmp_path / "new" / "x.png")]) == 0
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_not_replaced_unasked(trained, capsys):
    before = (trained / "checkpoint.safetensors").read_bytes()
    err = _fails(capsys, 2, "train", "maf", "--data", "moons", "--out", trained, *TINY)
    assert "--out: expected a folder without a run (or --overwrite, or --resume)" in err and str(trained) in err
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_the_same_seed_trains_the_same_model(trained, tmp_path):
    again = tmp_path / "again"
    for seed, equal in (("0", True), ("1", False)):
        assert cli.run(["train", "maf", "--data", "moons", "--out", str(again), "--overwrite", "--seed", seed, *TINY]) == 0
        nats = [json.loads((folder / "result.json").read_text())["nats_per_dim"]["MAF"] for folder in (trained, again)]
        assert (nats[0] == nats[1]) is equal


BAD_OPTIONS = [
    (["train"], "CONFIG-OR-MODEL: expected a config or a model, found none"),
    (["train", "gan"], "gan: unknown config or model; expected one of digits"),
    (["train", "digit"], "digit: unknown config or model; did you mean digits?"),
    (["train", "gone.toml"], "gone.toml: expected a file to read, found: No such file"),
    (
        ["train", "mushrooms"],
        "--data: expected a file or one of digits, patches, moons, rings, spirals, pinwheel, mnist, found none",
    ),
    (["train", "maf", "--data", "cifar"], "data: expected a file or one of digits, patches"),
    (["train", "maf", "--data", "gone.csv"], "gone.csv: expected"),
    (["train", "maf", "--data", "moons", "--set", "levels=2"], "moons: expected no options, which are for files, found levels"),
    (["data", "describe", "gone.csv"], "gone.csv: expected"),
    (["data", "describe", "moons", "--set", "level=2"], "--set level: expected a known key; did you mean levels?"),
    (["train", "maf", "--set", "epochs=0"], "--set epochs=0: [training] epochs: expected at least 1, found 0"),
    (["train", "maf", "--set", "epochs=many"], "--set epochs=many: [training] epochs: expected a whole number, found 'many'"),
    (["train", "maf", "--set", "epoch=2"], "--set epoch: expected a known key; did you mean epochs?"),
    (["train", "maf", "--set", "hidden_features=[8,"], "[model] hidden_features: expected a list, each of it a whole number"),
    (["train", "maf", "--set", "transforms=0"], "maf: transforms: expected at least 1, found 0"),
    (
        ["train", "maf", "--data", "moons", "--set", "batch_norm=true", "--set", "batch_size=1"],
        "maf: batch_size: expected at least 2 rows at a time for a batch normalisation, found 1",
    ),
    (["train", "maf", "--set", "hidden_features=[1000000000]"], "maf: hidden_features: expected widths of at most 1048576"),
    (["train", "maf", "--set", "learning_rate=nan"], "[training] learning_rate: expected a finite number, found nan"),
    (["train", "maf", "--set", "model.name=gan"], "--set model.name=gan: [model] name: expected one of maf"),
    (["train", "maf", "--on-nonfinite", "ignore"], "--on-nonfinite: [training] on_nonfinite: expected one of stop, skip"),
    (["train", "maf", "--seed", "-1"], "--seed: seed: expected 0 to 9223372036854775807, found -1"),
    (["train", "maf", "--threads", "0"], "'--threads': expected at least 1, found 0"),
    (
        ["train", "maf", "--device", "abacus"],
        "--device: expected a device of this machine, such as cpu or cuda, found 'abacus'",
    ),
    (["train", "maf", "--wings", "2"], "--wings"),
    (["train", "--resume"], "--resume: expected the folder of a run, as --out DIR or first, found none"),
    (["train", "--resume", "--out", "gone"], "gone/run.json: expected a file to read, found: No such file"),
    (["plot", "gone"], "gone/log.csv: cannot be read"),
    (["eval", "gone.safetensors", "--part", "all"], "'--part': expected one of train, valid, test, found 'all'"),
    (["eval", "gone.safetensors", "--out", "x.txt"], "'--out': expected a file that ends in .npy or .csv, found 'x.txt'"),
    (["sample", "gone.safetensors", "-n", "0"], "'-n' / '--n': expected at least 1, found 0"),
    (
        ["sample", "gone.safetensors", "--out", "x.txt"],
        "'--out': expected a file that ends in .npy or .csv or .png, found",
    ),
    (["sample", "gone.safetensors"], "gone.safetensors: expected a checkpoint, found no such file"),
    (["eval", "gone.safetensors"], "gone.safetensors: expected a checkpoint, found no such file"),
    (["eval", "."], "checkpoint.safetensors: expected a checkpoint, found no such file"),
    (["demo", "--data", "mnist"], "'--data': expected one of"),
    (["fly"], "'fly'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_OPTIONS, ids=[" ".join(a) for a, _ in BAD_OPTIONS])
def test_bad_options_are_named_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in _fails(capsys, 2, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["eval", "sample"])
@pytest.mark.parametrize("size", [0, 7, 1000])
def test_a_checkpoint_cut_short_is_named(trained, tmp_path, monkeypatch, capsys, command, size):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes((trained / "checkpoint.safetensors").read_bytes()[:size])
    assert "bad.safetensors: expected a whole safetensors file" in _fails(capsys, 2, command, bad)
    assert list(tmp_path.iterdir()) == [bad]


UNKNOWN_SOURCES = [
    (None, "x: expected a table [data], found data = None"),
    ({}, "--data: expected a file or one of"),
    ({"source": "/gone/rows.npy"}, "/gone/rows.npy: expected the data that "),
    ({"source": 3}, "x: [data] source: expected a string, found 3"),
    ({"source": "moons", "wings": 2}, "x: [data] wings: unknown key"),
]


@pytest.mark.parametrize(("source", "message"), UNKNOWN_SOURCES, ids=str)
def test_a_checkpoint_of_an_unknown_data_set_is_named(trained, tmp_path, capsys, source, message):
    tensors, description = io.load(trained / "checkpoint.safetensors")
    io.save(tmp_path / "x", tensors, {**description, "data": source})
    assert message in _fails(capsys, 2, "eval", tmp_path / "x")


def test_samples_need_no_data(trained, tmp_path):
    tensors, description = io.load(trained / "checkpoint.safetensors")
    io.save(tmp_path / "x", tensors, {**description, "data": {"source": "/gone/rows.npy"}})
    assert cli.run(["sample", str(tmp_path / "x"), "-n", "2", "--out", str(tmp_path / "x.npy")]) == 0


def test_eval_on_a_set_of_other_features(trained, capsys):
    err = _fails(capsys, 2, "eval", trained / "checkpoint.safetensors", "--data", "digits")
    assert "digits: expected 2 features, as" in err and "found 64" in err


def test_an_out_that_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"{out}: expected a folder to write to" in _fails(capsys, 2, "train", "maf", "--out", out, *TINY)
    assert (tmp_path / "file").read_text() == "mine"


def test_samples_that_cannot_be_written(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    err = _fails(capsys, 2, "sample", trained / "checkpoint.safetensors", "--out", tmp_path / "file" / "x.npy")
    assert "file/x.npy: cannot be written" in err


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    err = _fails(capsys, 1, "train", "maf", "--data", "moons", "--out", tmp_path / "x", *TINY, "--set", "learning_rate=1e38")
    assert re.search(r"step \d+ \(epoch 1\): .* finite.*; lower learning_rate", err)
    assert not (tmp_path / "x" / "checkpoint.safetensors").exists()


def test_a_batch_norm_is_trained_and_drawn(tmp_path):
    options = ["--set", "batch_norm=true", "--set", "ema=0.9"]
    assert cli.run(["train", "maf", "--data", "moons", "--out", str(tmp_path / "x"), *TINY, *options]) == 0
    assert (tmp_path / "x" / "summary.png").exists() and (tmp_path / "x" / "result.json").exists()


def test_test_rows_that_a_model_excludes_are_no_number_in_the_result(tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 2)).clip(-2, 2)
    np.savez(tmp_path / "x.npz", train=rows, valid=rows[:50], test=np.full((3, 2), 40.0))
    base = 'base={base = "Uniform", low = -20, high = 20}'
    data, out = str(tmp_path / "x.npz"), str(tmp_path / "x")
    assert cli.run(["train", "maf", "--data", data, "--out", out, *TINY, "--set", base]) == 0
    assert json.loads((tmp_path / "x" / "result.json").read_text())["nats_per_row"]["MAF"] is None


def test_eval_of_probabilities_on_rows_of_other_levels(tmp_path, capsys):
    coins = np.random.default_rng(0).integers(0, 2, (200, 2))
    np.savez(tmp_path / "coins.npz", x=coins)
    np.savez(tmp_path / "halves.npz", x=coins / 2)
    out = str(tmp_path / "x")
    train = ["train", "bernoulli-made", "--data", str(tmp_path / "coins.npz"), "--out", out]
    assert cli.run([*train, "--set", "epochs=1", "--set", "hidden_features=8"]) == 0
    err = _fails(capsys, 2, "eval", out, "--data", tmp_path / "halves.npz")
    assert "halves.npz: data: expected whole numbers from 0 to 1 for BernoulliMADE, found 0.5" in err


def test_more_samples_than_memory_holds(trained, tmp_path, capsys):
    err = _fails(capsys, 2, "sample", trained, "-n", 10**15, "--out", tmp_path / "x.npy")
    assert "-n: expected samples that fit in memory, found 1000000000000000" in err and not list(tmp_path.iterdir())


def test_samples_in_pieces(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.cli.draw.SAMPLED_ROWS", 7)
    assert cli.run(["sample", str(trained), "-n", "20", "--out", str(tmp_path / "x.npy")]) == 0
    samples = np.load(tmp_path / "x.npy")
    assert samples.shape == (20, 2) and len(np.unique(samples, axis=0)) == 20


def test_a_picture_of_no_epoch(trained, tmp_path, capsys):
    for name in ("log.csv", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    header, first = (tmp_path / "log.csv").read_text().splitlines()[:2]
    for lines, message in (
        ([header], "log.csv: expected a finished epoch, found none"),
        ([header, first, "2,3,nan,1,1,1,0"], "log.csv: expected 7 numbers in line 3, found: one that is not finite"),
    ):
        (tmp_path / "log.csv").write_text("\n".join(lines))
        assert message in _fails(capsys, 2, "plot", tmp_path)


def test_describe_tells_what_would_be_trained_on(tmp_path, capsys):
    lines = [f"{i},{i % 2},{'nan' if i == 7 else i / 4}" for i in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,c", *lines]))
    assert cli.run(["data", "describe", str(tmp_path / "x.csv"), "--set", "context=b"]) == 0
    printed = capsys.readouterr().out
    for part in ("31 train", "features: 2, 1 of context", "feature a: 0 to 39", "context b: 0 to 1", "line 9, column 'c'"):
        assert part in printed


def test_plot_draws_the_run_again(trained, tmp_path, capsys):
    assert cli.run(["plot", str(trained), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).output == f"fastgen {fastgen.__version__}\n"
    for arguments in ([], ["--help"]):
        shown = runner.invoke(cli.app, arguments)
        assert shown.exit_code == 0
        assert all(command in shown.output for command in ("train", "sample", "eval", "plot", "data", "doctor", "demo"))


def test_doctor_names_every_operation(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(cli.app, ["doctor"])
    assert shown.exit_code == 0
    for word in (
        *backends.OPERATIONS,
        fastgen.__version__,
        "torch",
        "triton",
        "python",
        "compiled module",
        "CPU threads",
        "GPU",
    ):
        assert word in shown.output


def test_doctor_works_where_parts_are_missing(monkeypatch):
    monkeypatch.setattr(backends, "_compiled", None)
    monkeypatch.setattr(backends, "_compiled_reason", "fastgen._C cannot be imported: gone")
    monkeypatch.setattr(backends, "_triton_reason", "triton is not installed")
    shown = CliRunner().invoke(cli.app, ["doctor"]).output
    assert (
        "cpu float32, cpu float64, cpu bfloat16, cuda float32, cuda bfloat16: reference: fastgen._C cannot be imported: gone"
        in shown
    )
    with backends.use("cpu"):
        assert "raises" in CliRunner().invoke(cli.app, ["doctor"]).output


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--version"], 0, f"fastgen {fastgen.__version__}\n", ""),
        (["eval", "gone"], 2, "", "fastgen: gone: expected a checkpoint, found no such file\n"),
    ],
)
def test_as_a_process(arguments, code, out, err, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "fastgen", *arguments], capture_output=True, text=True, cwd=Path(fastgen.__file__).parents[1]
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, out, err)
