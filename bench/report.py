"""How results are shown and kept: a table for people, long-format JSON and CSV for machines, a section of a Markdown page."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .case import OURS
from .rows import NOTHING, UNITS, Row

if TYPE_CHECKING:
    from rich.table import Table

_BEGIN, _END = r"<!-- begin {name}(?:: [^>]*)? -->\n", "<!-- end {name} -->"
_NUMBERS = ("value", "low", "high")


class ResultsError(ValueError):
    """A file that does not hold a benchmark's results."""


def show(rows: Sequence[Row]) -> None:
    """Prints the rows as a table; as Markdown where rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        print(markdown_table(rows, ""))
        return
    # A pipe is given the whole width of the table.
    console = Console() if sys.stdout.isatty() else Console(width=180)
    console.print(table(rows))


def table(rows: Iterable[Row]) -> Table:
    from rich.table import Table

    made = Table(caption="ratio: the candidate's number through fastgen's, median of pairs (quartiles)", caption_justify="left")
    for title in ("what", "shape", "on", "candidate"):
        made.add_column(title, no_wrap=title == "shape")
    for title in ("median", "quartiles", "ratio", "target", "of the roof", "memory"):
        made.add_column(title, justify="right", no_wrap=True)
    for group in cases(rows):
        for i, row in enumerate(group):
            made.add_row(
                *((f"{row.operation} {row.mode}", row.shape, _where(row)) if i == 0 else ("", "", "")),
                row.candidate,
                value(row) or row.note,
                "" if row.note else f"{number(row.low)}-{number(row.high)}",
                _ratio(row),
                _target(row),
                f"{row.share:.0%} ({row.bound})" if row.share is not None else "",
                "" if row.memory is None else f"{row.memory:.1f} MiB",
                style="bold" if row.candidate == OURS else "",
            )
        made.add_section()
    return made


def cases(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows of each comparison."""
    for _, group in groupby(rows, key=lambda row: row.case):
        yield list(group)


def number(value: float) -> str:
    """Three digits; all of them from 1000 on."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def value(row: Row) -> str:
    """The value with its unit, and how it was taken where that is not plain; nothing of a row without one."""
    if row.note:
        return ""
    return f"{number(row.value)} {UNITS[row.quantity]}" + (" with launches" if row.quantity == "call" else "")


def _where(row: Row) -> str:
    return row.instructions if row.dtype == "float32" else f"{row.instructions} {row.dtype}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"


def _target(row: Row) -> str:
    if row.target is None or row.reached is None:
        return "" if row.target is None else f"{row.target:.3g}"
    return f"{row.target:.3g} {'reached' if row.reached else 'missed'}"


def write(path: Path, run: dict[str, Any], rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [{**asdict(row), **{name: None for name in _missing(row)}} for row in rows]
    path.write_text(json.dumps({"run": run, "rows": kept}, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The run and the rows that `write` wrote. Raises ResultsError for anything else."""
    try:
        content = json.loads(path.read_text())
        return content["run"], [_row(row) for row in content["rows"]]
    except OSError as error:
        raise ResultsError(f"{path}: expected a benchmark's results, found: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: expected a benchmark's results with a run and rows, found: {error!r}") from error


def _row(kept: dict[str, Any]) -> Row:
    return Row(**{**kept, **{name: NOTHING for name in _NUMBERS if kept[name] is None}})


def write_csv(path: Path, run: dict[str, Any], rows: Sequence[Row]) -> None:
    """One line for each row, with everything that is known of the run behind it; nothing stands for what there is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = dict(_flat("run", run))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), *about])
        writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), **{name: "" for name in _missing(row)}, **about})


def _missing(row: Row) -> list[str]:
    return [name for name in _NUMBERS if math.isnan(getattr(row, name))]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value


def markdown(run: dict[str, Any], rows: Iterable[Row]) -> str:
    """The rows of one run as a Markdown table with a line on where they come from."""
    return f"{markdown_table(rows, run['cpu_variant'])}\n\n{measured_on(run)}"


def measured_on(run: dict[str, Any]) -> str:
    """A sentence on the machine, the versions and the day of an `environment`."""
    where = f"{run['processor']}, {run['threads']} threads, torch {run['versions']['torch']}, {run['time'][:10]}"
    return f"Measured on: {where}."


def markdown_table(rows: Iterable[Row], usual: str | None) -> str:
    """Instruction sets are named where they are not the usual one."""
    lines = ["| what | shape | fastgen | against | ratio | target |", "|---|---|---|---|---|---|"]
    for group in cases(rows):
        by_name = {row.candidate: row for row in group}
        ours = by_name.pop(OURS)
        for row in by_name.values():
            target = "" if row.target is None else f"{row.target:.3g}"
            ratio = row.note if row.ratio is None else f"{row.ratio:.2f}"
            lines.append(f"| {what(row, usual)} | {row.shape} | {value(ours)} | {row.candidate} | {ratio} | {target} |")
    return "\n".join(lines)


def what(row: Row, usual: str | None) -> str:
    """The operation and the pass, and in brackets what is not as usual: instructions of a CPU, a precision."""
    unusual = [row.instructions] if row.device == "cpu" and row.instructions != usual else []
    unusual += [row.dtype] if row.dtype != "float32" else []
    return f"{row.operation} {row.mode}" + (f" ({', '.join(unusual)})" if unusual else "")


def render(page: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- begin name -->` (or `<!-- begin name: what it shows -->`) and `<!-- end name -->`.

    Raises ValueError when the page lacks them.
    """
    section = re.compile(f"({_BEGIN.format(name=name)}).*?({_END.format(name=name)})", re.DOTALL)
    content = page.read_text()
    if not section.search(content):
        raise ValueError(f"{page}: expected <!-- begin {name} --> and <!-- end {name} -->, found none")
    page.write_text(section.sub(lambda found: f"{found[1]}{text}\n{found[2]}", content))
