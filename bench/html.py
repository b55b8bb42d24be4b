"""The report of a run as one HTML file, which opens without a network: tables that sort and filter, and the pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastgen.io import write_atomically

from .case import OURS
from .exponents import fit
from .html_table import Cell, Column, table
from .plots import figures
from .rows import UNITS, Row
from .sizes import series

_PAGE = Path(__file__).with_name("report_page.html")
_CASE = [Column("what", "what"), Column("shape", "shape"), Column("on", "on")]
_COMPARED = [
    *_CASE,
    Column("candidate", "against"),
    Column("ours", "fastgen", True),
    Column("value", "other", True),
    Column("ratio", "ratio", True),
    Column("quartiles", "quartiles"),
    Column("target", "target", True),
    Column("verdict", "verdict"),
]
_OWN = [
    *_CASE,
    Column("value", "median", True),
    Column("quartiles", "quartiles"),
    Column("share", "of the roof", True),
    Column("bound", "limited by"),
    Column("memory", "memory, MiB", True),
    Column("error", "relative error", True),
]
_LAWS = [
    Column("what", "what"),
    Column("rest", "at"),
    Column("axis", "against"),
    Column("exponent", "exponent", True),
    Column("uncertainty", "standard error", True),
    Column("range", "sizes"),
    Column("deviation", "worst point off by", True),
]


def write(path: Path, run: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes the page, atomically. Raises FileError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(run, rows).encode())


def page(run: dict[str, Any], rows: Sequence[Row]) -> str:
    laws = list(_laws(rows))
    sections = [_summary(run), _lost(rows), _targets(rows), _comparisons(rows), _fastgen(rows)]
    if laws:
        sections.append(_section("exponents", "Cost against size", table("laws", _LAWS, laws)))
    drawn = [_figure(name, figure) for name, figure in figures(run, rows)]
    if drawn:
        sections.append(_section("pictures", "Pictures", "\n".join(drawn), scroll=False))
    links = "".join(f'<a href="#{name}">{name}</a>' for name, wanted in (("exponents", laws), ("pictures", drawn)) if wanted)
    title = f"fastgen, measured on {run.get('processor', 'an unknown machine')}, {str(run.get('time', ''))[:10]}"
    text = _PAGE.read_text()
    filled = {"title": escape(title), "headline": _headline(rows), "links": links, "sections": "\n".join(sections)}
    return re.sub(r"@(\w+)@", lambda place: filled[place[1]], text)


def _section(name: str, title: str, content: str, *, before: str = "", scroll: bool = True) -> str:
    content = f'<div class="scroll" tabindex="0">{content}</div>' if scroll else content
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{before}{content}</section>'


def _summary(run: Mapping[str, Any]) -> str:
    git = run.get("git") or {}
    state = "" if not git else f"{git.get('commit', '')}{', with changes' if git.get('dirty') else ''}"
    told = {"versions": _listed(run.get("versions") or {}), "git": state or "none"}
    facts = {name: told.get(name) or _fact(value) for name, value in run.items()}
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()) + "</dl>"


def _fact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _headline(rows: Sequence[Row]) -> str:
    """What is lost and missed, in a line."""
    compared = [row for row in rows if row.ratio is not None]
    aimed = [row for row in rows if row.reached is not None]
    if not compared:
        return "Nothing was compared."
    lost, reached = len(_losing(compared)), sum(row.reached is True for row in aimed)
    told = f"fastgen loses {lost or 'none'} of {len(compared)} comparisons"
    return f"{told} and reaches {reached} of {len(aimed)} targets." if aimed else f"{told}."


def _losing(rows: Iterable[Row]) -> list[Row]:
    """Those where fastgen is behind, the worst first."""
    return sorted((row for row in rows if row.ratio is not None and row.ratio < 1), key=lambda row: row.ratio or 0)


def _lost(rows: Sequence[Row]) -> str:
    """What fastgen loses, and what has no number at all."""
    items = [f"{_what(row)}, {row.shape}: {row.ratio:.2f} against {row.candidate}" for row in _losing(rows)]
    without = [row for row in rows if row.note]
    items += [f"{_what(row)}, {row.shape}: {row.candidate} has no number, {row.note}" for row in without]
    listed = "".join(f"<li>{escape(item)}</li>" for item in items)
    return _section("lost", "Lost", f"<ul>{listed}</ul>" if items else "<p>None.</p>", scroll=len(items) > 20)


def _targets(rows: Sequence[Row]) -> str:
    aimed = [row for row in rows if row.reached is not None]
    missed = [row for row in aimed if not row.reached]
    told = "None." if aimed else "No targets were set."
    content = table("missed", _COMPARED, _compared_lines(missed, rows)) if missed else f"<p>{told}</p>"
    return _section("targets", "Targets missed", content, scroll=bool(missed))


def _comparisons(rows: Sequence[Row]) -> str:
    compared = [row for row in rows if row.candidate != OURS and row.ratio is not None]
    before = (
        '<div class="filters"><label>words <input name="filter" type="search" placeholder="coupling backward"></label>'
        '<label>show <select name="show"><option value="">all</option><option value="lost">lost</option>'
        '<option value="missed">targets missed</option></select></label><span class="count" data-count="all"></span></div>'
        '<p class="note">ratio: what the other takes over what fastgen takes, median of pairs; above 1 fastgen is ahead.</p>'
    )
    return _section("comparisons", "Comparisons", table("all", _COMPARED, _compared_lines(compared, rows)), before=before)


def _compared_lines(rows: Iterable[Row], among: Sequence[Row]) -> Iterator[tuple[list[Cell], str]]:
    ours = {_case(row): row for row in among if row.candidate == OURS}
    for row in rows:
        own = ours.get(_case(row))
        lost = row.ratio is not None and row.ratio < 1
        verdict = [{True: "reached", False: "missed"}[row.reached]] if row.reached is not None else []
        verdict += ["lost"] if lost else []
        yield (
            [
                *_case_cells(row),
                Cell(row.candidate),
                Cell("") if own is None else _value(own),
                _value(row),
                _number(row.ratio),
                Cell("" if row.ratio_low is None else f"{row.ratio_low:.2f} to {row.ratio_high:.2f}"),
                _number(row.target),
                Cell(", ".join(verdict)),
            ],
            " ".join(verdict),
        )


def _fastgen(rows: Sequence[Row]) -> str:
    own = (row for row in rows if row.candidate == OURS and not row.note)
    lines = (
        (
            [
                *_case_cells(row),
                _value(row),
                Cell(f"{row.low:.3g} to {row.high:.3g}"),
                Cell("" if row.share is None else f"{row.share:.0%}", row.share),
                Cell(row.bound or ""),
                Cell("" if row.memory is None else f"{row.memory:.1f}", row.memory),
                Cell("" if row.error is None else f"{row.error:.1e}", row.error),
            ],
            "",
        )
        for row in own
    )
    before = '<p class="filters"><span class="count" data-count="own"></span></p>'
    return _section("fastgen", "fastgen's own numbers", table("own", _OWN, lines), before=before)


def _laws(rows: Sequence[Row]) -> Iterator[tuple[list[Cell], str]]:
    for key, points in series(rows).items():
        law = fit({size: row.value for size, row in points.items()}) if key.candidate == OURS else None
        if law is not None:
            yield (
                [
                    Cell(f"{key.operation} {key.mode}, {key.quantity}"),
                    Cell(key.rest),
                    Cell(key.axis),
                    _number(law.exponent),
                    _number(law.error),
                    Cell(f"{law.low} to {law.high}"),
                    Cell(f"{law.deviation:.0%}", law.deviation),
                ],
                "",
            )


def _case(row: Row) -> tuple[str, ...]:
    return row.operation, row.mode, row.shape, row.dtype, row.device, row.instructions, row.quantity


def _case_cells(row: Row) -> list[Cell]:
    return [
        Cell(_what(row)),
        Cell(row.shape),
        Cell(row.instructions if row.dtype == "float32" else f"{row.instructions} {row.dtype}"),
    ]


def _what(row: Row) -> str:
    return f"{row.operation} {row.mode}" + ("" if row.quantity == "time" else f", {row.quantity}")


def _value(row: Row) -> Cell:
    return Cell(f"{row.value:.3g} {UNITS[row.quantity]}", row.value)


def _number(value: float | None) -> Cell:
    return Cell("" if value is None else f"{value:.2f}", value)


def _figure(name: str, figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    data = base64.b64encode(content.getvalue()).decode()
    image = f'<figure><img alt="{escape(name)}" loading="lazy" src="data:image/png;base64,{data}"></figure>'
    opened = "" if name.startswith("speedup-") else " open"
    return f"<details{opened}><summary>{escape(name.replace('-', ' '))}</summary>{image}</details>"
