"""How results are shown and kept: a table for people, long-format JSON for machines, a section of a Markdown page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .case import OURS
from .measure import Row

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = {"time": "ms", "extra memory": "MiB"}
_BEGIN, _END = "<!-- begin {name} -->", "<!-- end {name} -->"


def show(rows: Sequence[Row]) -> None:
    """Prints the rows as a table; as Markdown where rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        print(_markdown_table(rows, ""))
        return
    # A pipe is given the whole width of the table.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table(rows))


def table(rows: Iterable[Row]) -> Table:
    from rich.table import Table

    made = Table(caption="ratio: the candidate's number through fastgen's, median of pairs (quartiles)", caption_justify="left")
    for title in ("what", "shape", "on", "candidate"):
        made.add_column(title, no_wrap=title == "shape")
    for title in ("median", "quartiles", "ratio", "target", "of the roof"):
        made.add_column(title, justify="right", no_wrap=True)
    for (operation, mode, shape, *_), group in _cases(rows):
        for i, row in enumerate(group):
            made.add_row(
                *((f"{operation} {mode}", shape, _where(row)) if i == 0 else ("", "", "")),
                row.candidate,
                f"{_number(row.value)} {_UNITS[row.quantity]}",
                f"{_number(row.low)}-{_number(row.high)}",
                _ratio(row),
                _target(row),
                f"{row.share:.0%} ({row.bound})" if row.share is not None else "",
                style="bold" if row.candidate == OURS else "",
            )
        made.add_section()
    return made


def _cases(rows: Iterable[Row]):  # type: ignore[no-untyped-def]
    return groupby(rows, key=lambda row: (row.operation, row.mode, row.shape, row.instructions, row.dtype, row.quantity))


def _number(value: float) -> str:
    """Three digits; all of them from 1000 on."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _where(row: Row) -> str:
    return row.instructions if row.dtype == "float32" else f"{row.instructions} {row.dtype}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"


def _target(row: Row) -> str:
    return "" if row.target is None else f"{row.target:.3g} {'reached' if row.reached else 'missed'}"


def write(path: Path, run: dict[str, Any], rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": run, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The run and the rows that `write` wrote. Raises ValueError for anything else."""
    try:
        content = json.loads(path.read_text())
        return content["run"], [Row(**row) for row in content["rows"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        names = ", ".join(f.name for f in fields(Row))
        raise ValueError(f"{path}: expected a benchmark's results with a run and rows of {names}, found: {error}") from error


def markdown(run: dict[str, Any], rows: Iterable[Row]) -> str:
    """The rows of one run as a Markdown table with a line on where they come from."""
    return f"{_markdown_table(rows, run['cpu_variant'])}\n\n{measured_on(run)}"


def measured_on(run: dict[str, Any]) -> str:
    """A sentence on the machine, the versions and the day of an `environment`."""
    where = f"{run['processor']}, {run['threads']} threads, torch {run['versions']['torch']}, {run['time'][:10]}"
    return f"Measured on: {where}."


def _markdown_table(rows: Iterable[Row], usual: str | None) -> str:
    """Instruction sets are named where they are not the usual one."""
    lines = ["| what | shape | fastgen | against | ratio | target |", "|---|---|---|---|---|---|"]
    for (operation, mode, shape, instructions, *_), group in _cases(rows):
        by_name = {row.candidate: row for row in group}
        ours = by_name.pop(OURS)
        for row in by_name.values():
            what = f"{operation} {mode}" + (f" ({instructions})" if instructions != usual else "")
            value = f"{_number(ours.value)} {_UNITS[ours.quantity]}"
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            target = "" if row.target is None else f"{row.target:.3g}"
            lines.append(f"| {what} | {shape} | {value} | {row.candidate} | {ratio} | {target} |")
    return "\n".join(lines)


def render(page: Path, name: str, text: str) -> None:
    """Replaces what stands between the markers `<!-- begin name -->` and `<!-- end name -->` of a page.

    Raises ValueError when the page lacks them.
    """
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page}: expected the markers {begin} and {end}, found none")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
