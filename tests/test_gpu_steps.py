"""What `make gpu` is made of, as far as that needs no GPU: time limits, the table, the limit on files, rows in short."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = {"operation": "planar", "mode": "forward", "shape": "8 x 2", "dtype": "float32", "quantity": "time", "note": ""}


def run(out: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-uo", "pipefail", "-c", f". .ci/steps.sh\n{script}"]
    variables = {"OUT": str(out), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


def table(out: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(.*?) +\d+ s$", (out / "summary").read_text(), re.MULTILINE))


def test_a_slow_step_is_cut_and_the_rest_runs(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run(tmp_path, "step slow 1 sh -c 'echo begun; sleep 60 & wait'; step quick 10 echo well; finish true")
    assert time.monotonic() - start < 30
    assert done.returncode == 1
    assert table(tmp_path) == {"slow": "cut", "quick": "passed"}
    assert all(word in (tmp_path / "log").read_text() for word in ("begun", "well"))
    assert done.stdout.endswith((tmp_path / "summary").read_text())


def test_what_failed_and_what_was_skipped_is_told_apart(tmp_path: Path) -> None:
    done = run(tmp_path, "step good 9 true; step bad 9 sh -c 'exit 3'; step absent 9 sh -c 'exit 77'; finish echo rows")
    assert table(tmp_path) == {"good": "passed", "bad": "failed (3)", "absent": "skipped"}
    assert done.returncode == 1
    assert done.stdout.endswith("rows\n")


def test_a_skipped_step_is_no_failure(tmp_path: Path) -> None:
    assert run(tmp_path, "step absent 9 sh -c 'exit 77'; finish true").returncode == 0


def test_all_steps_end_within_the_total(tmp_path: Path) -> None:
    done = run(tmp_path, "step first 60 sleep 30; step second 60 true; finish true", TOTAL_SECONDS="1")
    assert table(tmp_path) == {"first": "cut", "second": "no time left"}
    assert done.returncode == 1


def test_too_many_files_fail(tmp_path: Path) -> None:
    for i in range(7):
        (tmp_path / f"{i}.json").touch()
    done = run(tmp_path, "step good 9 true; finish true")
    assert done.returncode == 1
    assert "expected at most 8 files, found 9" in done.stdout


def test_the_limits_of_the_steps_are_less_than_eight_minutes() -> None:
    script = (ROOT / ".ci/gpu").read_text()
    limits = [int(seconds) for seconds in re.findall(r'step "[^"]+" (\d+) ', script)]
    assert len(limits) == 5
    # The benchmark's step runs twice.
    (bench,) = re.findall(r'step "bench \$names" (\d+) ', script)
    assert sum(limits) + int(bench) < 480
    assert re.search(r"TOTAL_SECONDS:=(\d+)", (ROOT / ".ci/steps.sh").read_text())[1] < "480"


@pytest.mark.parametrize("nothing", [True, False])
def test_rows_in_short(tmp_path: Path, nothing: bool) -> None:
    file = tmp_path / "operations.json"
    other = {**ROW, "candidate": "eager", "value": 0.5, "ratio": 2.0, "share": None}
    ours = {**ROW, "candidate": "fastgen", "value": 0.25, "ratio": None, "share": 0.5}
    if not nothing:
        wrong = {**ours, "shape": "3 x 2", "note": "differs from the truth"}
        file.write_text(json.dumps({"rows": [other, ours, wrong]}))
    done = subprocess.run(["python3", ROOT / ".ci/rows.py", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if nothing:
        assert done.stdout == "operations.json: not written\n"
    else:
        assert done.stdout.splitlines()[2:] == [
            "planar forward 8 x 2 float32  250.0 us 50% of the roof  eager 2.00",
            "planar forward 3 x 2 float32  differs from the truth",
        ]
