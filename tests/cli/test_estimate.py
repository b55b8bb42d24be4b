"""`fastgen estimate`: what it says, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from fastgen.bench.report import write
from fastgen.bench.rows import Row
from fastgen.cli.app import run

CEILINGS = ["--device-rate", "700", "--bandwidth", "4000"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The second column of the tables, by the first."""
    assert run(["estimate", *arguments]) == 0
    lines = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    cells = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    return {found[0]: found[1] for found in cells if len(found) > 1}


def test_memory_and_time_of_a_flow_on_many_gpus(capsys):
    found = said(capsys, "maf", "--gpus", "8", "--features", "64", "--hidden", "512,512", "--transforms", "5", *CEILINGS)
    # 1808000 parameters in float32.
    assert found["parameters"] == found["gradients"] == found["buckets"] == "6.9" and found["moments"] == "13.8"
    parts = ("parameters", "gradients", "buckets", "moments", "rows", "saved", "workspace")
    assert float(found["moments"]) < float(found["at the worst moment"]) < sum(float(found[part]) for part in parts) + 0.1
    assert float(found["step"]) > float(found["backward"]) > float(found["forward"]) > 0
    assert float(found["all-reduce"]) == pytest.approx(1e3 * 2 * 7 / 8 * 4 * 1808000 / 50e9, rel=0.01)


def test_one_gpu_has_no_all_reduce(capsys):
    found = said(capsys, "vae", "--hidden", "16", *CEILINGS)
    assert "all-reduce" not in found and "buckets" not in found and float(found["step"]) > 0


def test_half_precision_halves_memory(capsys):
    arguments = ["nice", "--features", "200", "--batch", "4000", *CEILINGS]
    single = said(capsys, *arguments)
    half = said(capsys, *arguments, "--dtype", "bfloat16")
    assert float(half["saved"]) == pytest.approx(float(single["saved"]) / 2, rel=0.01)


def test_a_reversible_stack_saves_less(capsys):
    plain = said(capsys, "realnvp", "--transforms", "20", *CEILINGS)
    reversible = said(capsys, "realnvp", "--transforms", "20", "--set", "reversible=true", *CEILINGS)
    assert 5 * float(reversible["saved"]) < float(plain["saved"])
    assert float(reversible["backward"]) > float(plain["backward"])


@pytest.mark.parametrize("model", ["gaussian-autoregressive", "iwae", "categorical-made", "iaf"])
def test_models_of_every_kind(capsys, model):
    assert float(said(capsys, model, "--features", "8", *CEILINGS)["parameters"]) > 0


def results(path: Path, **run_of: object) -> str:
    """A file of results with one measured step, a tenth of its roof."""
    row = Row("MAF", "step", "x", "float32", "cpu", "avx2", "fastgen", "time", 10.0, 9.0, 11.0, roof=1.0, share=0.1)
    write(path, {"processor": "a chip", **run_of}, [row])
    assert json.loads(path.read_text())["rows"][0]["share"] == asdict(row)["share"]
    return str(path)


def test_measured_ceilings_and_shares_are_taken_and_named(capsys, tmp_path):
    ceilings = {"gemm, FLOP/s": {"float32": 7e14}, "copy, bytes/s": {"1000000": 4e12}}
    file = results(tmp_path / "rows.json", ceilings=ceilings)
    measured = said(capsys, "maf", "--like", file)
    assert float(measured["step"]) == pytest.approx(10 * float(said(capsys, "maf", *CEILINGS)["step"]), rel=0.01)
    assert run(["estimate", "maf", "--like", file]) == 0
    told = capsys.readouterr().out
    assert "ceilings: of a chip" in told and "share of the roof: 0.1, that of MAF step, x" in told


def test_a_given_share_goes_before_a_measured_one(capsys, tmp_path):
    file = results(tmp_path / "rows.json")
    halved = said(capsys, "maf", "--like", file, "--share", "0.5", *CEILINGS)
    assert float(halved["step"]) == pytest.approx(2 * float(said(capsys, "maf", *CEILINGS)["step"]), rel=0.01)


FAULTS = {
    "mav": ([], "expected one of maf"),
    "maf --hidden 4,x": ([], "expected whole numbers of at least 1, such as 512,512, found '4,x'"),
    "maf --gpus 0": ([], "expected at least 1, found 0"),
    "maf --dtype int8": ([], "expected one of float32"),
    "maf --link 0": ([], "expected a number above 0, found 0"),
    "maf --device-rate 5": ([], "--bandwidth: expected together with the other ceiling, found none"),
    "gaussian-made --transforms 4": ([], "--transforms: [model] transforms: unknown key"),
    "maf --set transform=3": (CEILINGS, "did you mean transforms?"),
    "realnvp --features 1": (CEILINGS, "features: expected at least 2"),
    "maf --like none.json": ([], "--like: none.json: "),
}


@pytest.mark.parametrize("command", FAULTS)
def test_faults_are_named(capsys, command):
    more, message = FAULTS[command]
    assert run(["estimate", *command.split(), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_results_without_ceilings_are_named(capsys, tmp_path):
    file = results(tmp_path / "rows.json")
    assert run(["estimate", "maf", "--like", file]) == 2
    assert "rows.json: expected ceilings of float32, found none" in capsys.readouterr().err
