"""From rows to tables, files and pages, and two runs side by side."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastgen.bench import pages, report
from fastgen.bench.case import OURS
from fastgen.bench.compare import compare, lines
from fastgen.bench.environment import environment
from fastgen.bench.registry import UsageError
from fastgen.bench.rows import NOTHING, Row


def a_row(**changes: Any) -> Row:
    row = Row("an operation", "forward", "2 x 3", "float32", "cpu", "avx2", OURS, "time", 1.0, 0.9, 1.1, entry="maf")
    return dataclasses.replace(row, **changes)


DENSE = a_row(candidate="dense", value=2.0, ratio=2.0, ratio_low=1.9, ratio_high=2.1, target=1.7)
WRONG = a_row(candidate="peer", value=NOTHING, low=NOTHING, high=NOTHING, error=0.5, note="results differ: much")
ROWS = [a_row(memory=3.25), DENSE, WRONG]


def test_results_survive_the_file(tmp_path: Path) -> None:
    run = environment("cpu")
    report.write(tmp_path / "new" / "rows.json", run, ROWS)
    assert report.read(tmp_path / "new" / "rows.json") == (run, ROWS)
    assert "NaN" not in (tmp_path / "new" / "rows.json").read_text()


def test_a_line_of_csv_holds_everything_about_a_row(tmp_path: Path) -> None:
    run = environment("cpu")
    report.write_csv(tmp_path / "rows.csv", run, ROWS)
    with (tmp_path / "rows.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for line, row in zip(found, ROWS, strict=True):
        for field in dataclasses.fields(Row):
            value = getattr(row, field.name)
            missing = value is None or value is NOTHING
            assert line[field.name] == ("" if missing else str(value))
        assert line["run.processor"] == run["processor"] and line["run.versions.torch"] == run["versions"]["torch"]
        assert line["run.git.commit"] == run["git"]["commit"] and line["run.time"] == run["time"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": {}, "rows": [{"operation": "x"}]}', '{"run": {}, "rows": 3}'])
def test_a_file_that_holds_no_results_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=r"rows\.json: expected a benchmark's results"):
        report.read(tmp_path / "rows.json")


def test_the_table_shows_ratio_and_target_and_what_has_none() -> None:
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(report.table(ROWS))
    text = console.export_text().splitlines()
    dense, wrong = (next(line for line in text if name in line) for name in ("dense", "peer"))
    assert "2.00 (1.90-2.10)" in dense and "1.7 reached" in dense and "results differ: much" in wrong and "nan" not in wrong
    assert "3.2 MiB" in next(line for line in text if OURS in line)


def test_a_page_is_rendered_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin energies: some.json -->\nold\n<!-- end energies -->\nafter\n")
    text = report.markdown(environment("cpu"), ROWS)
    for _ in range(2):
        report.render(page, "energies", text)
    content = page.read_text()
    assert content.startswith("before\n<!-- begin energies: some.json -->\n|") and "old" not in content
    assert content.endswith("-->\nafter\n")
    assert content.count("| dense | 2.00 | 1.7 |") == 1 and content.count("| peer | results differ: much |  |") == 1


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin energies -->\n")
    with pytest.raises(ValueError, match=r"page\.md: expected <!-- begin energies -->"):
        report.render(page, "energies", "text")
    assert page.read_text() == "before\n<!-- begin energies -->\n"


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_every_table_of_the_pages_is_what_render_makes_of_the_results(page: Path) -> None:
    assert pages.rendered(page) == page.read_text()


def test_sections_choose_files_and_entries(tmp_path: Path) -> None:
    report.write(tmp_path / "some.json", environment("cpu"), [*ROWS, a_row(operation="another", entry="vae"), DENSE])
    page = tmp_path / "page.md"
    page.write_text("<!-- begin benchmarks: some.json vae -->\n<!-- end benchmarks -->\nfigures\n")
    assert "an operation" not in pages.rendered(page, tmp_path) and pages.rendered(page, tmp_path).endswith("figures\n")
    page.write_text("<!-- begin benchmarks: some.json mav -->\n<!-- end benchmarks -->\n")
    with pytest.raises(UsageError, match=r"page\.md: mav: nothing of that name is measured; did you mean maf\?"):
        pages.rendered(page, tmp_path)
    page.write_text("<!-- begin benchmarks: none.json -->\n<!-- end benchmarks -->\n")
    with pytest.raises(UsageError, match=r"page\.md: .*none\.json: expected a benchmark's results"):
        pages.rendered(page, tmp_path)


def test_what_is_lost_is_listed() -> None:
    lost = dataclasses.replace(DENSE, candidate="faster", ratio=0.8, target=None)
    missed = dataclasses.replace(DENSE, candidate="nearly", ratio=1.5)
    allowed = dataclasses.replace(DENSE, candidate="meant to be", ratio=0.8, target=0.7)
    text = "\n".join(pages.slower([*ROWS, lost, missed, allowed], "avx2"))
    assert "Of 4 comparisons fastgen loses 1, and wins 1 by less than it was to." in text
    assert "| faster | 0.80 |  |" in text and "| nearly | 1.50 | 1.7 |" in text
    assert "dense" not in text and "meant to be" not in text


RUN = {"processor": "p", "capability": "AVX2", "threads": 2}


def test_what_moved_is_what_lies_apart() -> None:
    before = [
        a_row(),
        DENSE,
        dataclasses.replace(DENSE, candidate="other"),
        dataclasses.replace(DENSE, candidate="gone"),
        WRONG,
    ]
    after = [
        # Its quartiles overlap with those before.
        a_row(value=1.15, low=1.05, high=1.3),
        dataclasses.replace(DENSE, ratio=2.5, ratio_low=2.2, ratio_high=2.6, value=9.0),
        dataclasses.replace(DENSE, candidate="other", ratio=2.2, ratio_low=2.05, ratio_high=2.3),
        dataclasses.replace(DENSE, candidate="new"),
        dataclasses.replace(DENSE, candidate="peer"),
    ]
    found = compare((RUN, before), (RUN, after))
    assert [(moved.after.candidate, moved.factor) for moved in found.moved] == [("dense", 1.25)] and found.compared == 3
    assert [row.candidate for row in found.appeared] == ["new", "peer"]
    assert [row.candidate for row in found.vanished] == ["gone"]
    text = "\n".join(lines(found))
    assert "1 of 3 rows moved" in text and "| ratio 2.00 (1.90-2.10) | ratio 2.50 (2.20-2.60) | 1.25 times better |" in text
    assert "1 vanished:\n- an operation forward (avx2 float32), 2 x 3: gone" in text


def test_times_are_compared_on_the_same_machine_only() -> None:
    faster = a_row(value=0.5, low=0.4, high=0.6)
    [moved] = compare((RUN, [a_row()]), (RUN, [faster])).moved
    assert moved.factor == 2
    found = compare((RUN, [a_row()]), ({**RUN, "processor": "another"}, [faster]))
    assert not found.moved and found.compared == 0 and "different machines" in "\n".join(lines(found))


def test_committed_results_hold_entries(tmp_path: Path) -> None:
    for name in ("cpu", "coupling", "inverse"):
        file = pages.RESULTS / f"{name}.json"
        _, rows = report.read(file)
        assert rows and all(row.entry for row in rows)
        report.write(tmp_path / file.name, json.loads(file.read_text())["run"], rows)
        assert (tmp_path / file.name).read_text() == file.read_text()
