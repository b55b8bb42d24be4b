"""`fastgen bench` and `python -m fastgen.bench`: one command, its names and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgen import flows, models
from fastgen.bench import __main__ as without_typer
from fastgen.bench import command, report
from fastgen.bench.case import OURS, Setting
from fastgen.bench.registry import GROUPS, MODELS, OPERATIONS, UsageError, chosen
from fastgen.bench.rows import NOTHING, Row
from fastgen.cli.app import run
from fastgen.train.models import MODELS as TRAINED

BENCH = Path(command.__file__).parent


def test_there_is_an_entry_for_every_file_and_every_model() -> None:
    for folder, entries in (("ops", OPERATIONS), ("models", MODELS)):
        assert {entry.name for entry in entries} == {path.stem for path in (BENCH / folder).glob("[a-z]*.py")}
        assert {entry.folder for entry in entries} == {folder}
    measured = {name for entry in MODELS for name in entry.measures}
    wanted = {kind.__name__ for kind in TRAINED.values()} | {flows.PlanarFlow.__name__, flows.RadialFlow.__name__}
    assert wanted <= measured
    assert measured - {"accelerate", "calls", "reversible", "training"} <= {*flows.__all__, *models.__all__}


def test_names_are_those_of_files_operations_classes_and_groups() -> None:
    assert [entry.name for entry in chosen(["additive_coupling", "MAF", "maf"])] == ["coupling", "maf"]
    assert (
        chosen(["models"]) == list(MODELS) and chosen([]) == [*OPERATIONS, *MODELS] and set(GROUPS) == {"operations", "models"}
    )
    with pytest.raises(UsageError, match=r"^planr: nothing of that name is measured; did you mean planar\?$"):
        chosen(["planr"])
    with pytest.raises(UsageError, match=r"^qqq: .* expected one of .*maf"):
        chosen(["qqq"])


def test_the_command_writes_what_it_measured(tmp_path: Path, quickly: None, capsys: pytest.CaptureFixture[str]) -> None:
    file, table = tmp_path / "rows.json", tmp_path / "rows.csv"
    assert run(["bench", "gaussian_log_prob", "--quick", "--json", str(file), "--csv", str(table)]) == 0
    about, rows = report.read(file)
    assert {(row.entry, row.mode) for row in rows} == {
        ("gaussian_log_prob", mode) for mode in ("forward", "backward", "forward+backward")
    }
    assert {"time", "git", "versions", "processor", "threads", "ceilings"} <= set(about)
    assert len(table.read_text().splitlines()) == 1 + len(rows)
    assert "gaussian_log_prob forward" in capsys.readouterr().out
    # The same results again, and nothing measured.
    assert run(["bench", "--from", str(file), "--json", str(tmp_path / "again.json")]) == 0
    assert report.read(tmp_path / "again.json") == (about, rows)
    assert without_typer.main(["--compare", str(file), str(tmp_path / "again.json")]) == 0
    assert f"0 of {len(rows)} rows moved" in capsys.readouterr().out


def test_a_wrong_result_of_fastgens_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Row("an operation", "forward", "2", "float32", "cpu", "avx2", OURS, "time", *(NOTHING,) * 3, note="differs")
    monkeypatch.setattr(command, "measured", lambda entry, setting: [wrong])
    assert without_typer.main(["maf", "--json", str(tmp_path / "rows.json")]) == 1
    assert "fastgen is wrong: an operation forward, 2: differs" in capsys.readouterr().err
    assert report.read(tmp_path / "rows.json")[1] == [wrong]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["planr"], "did you mean planar?"),
        (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
        (["--dtype", "tf32", "maf"], "--dtype: expected a precision of the CPU's, found tf32"),
        (["maf", "--dtype", "bfloat16"], "--dtype: expected float32, tf32, float64 for maf, found bfloat16"),
        (["--threads", "many"], "--threads"),
        (["--threads", "0"], "--threads: expected at least 1, found 0"),
        (["--quick", "--full"], "--full: not allowed with argument --quick"),
        (["--compare", "a.json", "b.json"], "a.json: expected a benchmark's results, found: No such file or directory"),
        (["--from", "a.json"], "a.json: expected a benchmark's results"),
        (["--nothing"], "--nothing"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in (without_typer.main, lambda words: run(["bench", *words])):
        assert call(arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("fastgen") and message in line


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(["bench", "maf", "--device", "cuda"]) == 2
    assert "--device: expected cpu, found cuda where torch finds no CUDA device" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("fastgen.bench.ceilings.launch_latency", lambda device: 0.0)
    assert run(["bench", "training", "--device", "cuda"]) == 2
    assert "--device: expected cpu for training, found cuda" in capsys.readouterr().err


def test_help_is_the_same_in_both(capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for call in (lambda: run(["bench", "--help"]), lambda: without_typer.main(["--help"])):
        with pytest.raises(SystemExit, match="0"):
            call()
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] and "--compare A B" in pages[0] and "masked_linear" in pages[0]


def test_settings_say_what_takes_long() -> None:
    assert Setting().counts_memory and not Setting(quick=True).counts_memory and not Setting("cuda").counts_memory
