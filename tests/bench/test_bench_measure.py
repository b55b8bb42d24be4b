"""From cases to rows, and from rows to pages and files."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fastgen import backends
from fastgen.bench import measure as measuring
from fastgen.bench import report
from fastgen.bench.case import OURS, Case, MemoryCase, Work, relative_error
from fastgen.bench.environment import environment
from fastgen.bench.measure import Row, WrongResult, measure

MIB = 2**20


def a_case(error: float = 0.0, call: Callable[[], object] = lambda: None) -> Case:
    work = Work(flops=2e6, bytes=1e4)
    return Case("an operation", "forward", "2 x 3", {OURS: call, "dense": call}, lambda: error, work, {"dense": 1e6})


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SECONDS", {True: 0.01, False: 0.01})


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_nothing_is_timed_that_is_wrong(error: float) -> None:
    def call() -> None:
        raise AssertionError("timed")

    with pytest.raises(WrongResult, match=r"an operation, forward, 2 x 3: relative error"):
        list(measure(a_case(error, call)))


def test_rows_of_a_case(quickly: None) -> None:
    ours, dense = measure(a_case(error=1e-7), quick=True)
    assert (ours.candidate, ours.ratio, ours.target, ours.reached, ours.error) == (OURS, None, None, None, 1e-7)
    assert dense.candidate == "dense" and dense.target == 1e6 and dense.reached is False and dense.error is None
    assert dense.ratio_low <= dense.ratio <= dense.ratio_high  # type: ignore[operator]
    assert ours.roof == dense.roof and ours.share == pytest.approx(ours.roof / ours.value)  # type: ignore[operator]
    assert ours.bound == "arithmetic"


def test_a_forced_variant_is_undone(quickly: None) -> None:
    if backends.cpu_variant() is None:
        pytest.skip("fastgen._C is not built")
    before = backends.cpu_variant()
    seen = []
    case = dataclasses.replace(a_case(call=lambda: seen.append(backends.cpu_variant())), variant="portable")
    rows = list(measure(case, quick=True))
    assert set(seen) == {"portable"} and rows[0].instructions.startswith("portable")
    assert backends.cpu_variant() == before


def test_relative_error_is_that_of_the_worst_pair() -> None:
    x = torch.tensor([3.0, 4.0])
    assert relative_error([x, x * 1.5], [x, x]) == pytest.approx(0.5)
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0


def hold_and_return() -> Callable[[], object]:
    """A call that returns 8 MiB and holds 24 MiB more for a while."""

    def call() -> bytearray:
        scratch = bytearray(os.urandom(24 * MIB))
        return bytearray(scratch[: 8 * MIB])

    return call


def return_only() -> Callable[[], object]:
    return lambda: bytearray(b"1" * 8 * MIB)


@pytest.mark.slow
def test_memory_counts_what_a_call_holds_and_frees() -> None:
    case = MemoryCase(
        "an operation", "forward", "", {OURS: return_only, "wasteful": hold_and_return}, 8 * MIB, {"bound": 12 * MIB}
    )
    ours, wasteful, bound = measure(case)
    # `return_only` holds its bytes twice; `hold_and_return` 24 MiB twice, then once beside two of 8 MiB.
    assert ours.value == pytest.approx(8, abs=1) and wasteful.value == pytest.approx(40, abs=1)
    assert bound.value == 12 and bound.reached and bound.quantity == "extra memory"


def a_row(**changes: object) -> Row:
    row = Row("an operation", "forward", "2 x 3", "float32", "cpu", "avx2", OURS, "time", 1.0, 0.9, 1.1)
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


ROWS = [a_row(), a_row(candidate="dense", value=2.0, ratio=2.0, ratio_low=1.9, ratio_high=2.1, target=1.7)]


def test_results_survive_the_file(tmp_path: Path) -> None:
    run = environment("cpu")
    report.write(tmp_path / "new" / "rows.json", run, ROWS)
    assert report.read(tmp_path / "new" / "rows.json") == (run, ROWS)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": {}, "rows": [{"operation": "x"}]}'])
def test_a_file_that_holds_no_results_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=r"rows\.json: expected a benchmark's results"):
        report.read(tmp_path / "rows.json")


def test_the_table_shows_ratio_and_target() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table(ROWS))
    line = next(line for line in console.export_text().splitlines() if "dense" in line)
    assert "2.00 (1.90-2.10)" in line and "1.7 reached" in line


def test_a_page_is_rendered_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin benchmarks -->\nold\n<!-- end benchmarks -->\nafter\n")
    text = report.markdown(environment("cpu"), ROWS)
    for _ in range(2):
        report.render(page, "benchmarks", text)
    content = page.read_text()
    assert content.startswith("before\n") and content.endswith("-->\nafter\n") and "old" not in content
    assert content.count("| dense | 2.00 | 1.7 |") == 1


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin benchmarks -->\n")
    with pytest.raises(ValueError, match=r"page\.md: expected the markers"):
        report.render(page, "benchmarks", "text")
    assert page.read_text() == "before\n<!-- begin benchmarks -->\n"
