"""Tables of an HTML page that its script sorts and filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Cell(NamedTuple):
    """What a cell shows, and what it sorts by where that is not the text; nothing to sort by goes last."""

    text: str
    key: float | None = None


class Column(NamedTuple):
    """name: what a link calls it, as in #sort=ratio. numeric: whether cells sort by their keys and stand on the right."""

    name: str
    title: str
    numeric: bool = False


def table(name: str, columns: Sequence[Column], rows: Iterable[tuple[Sequence[Cell], str]]) -> str:
    """Each row with its class, "" for none; everything is escaped."""
    heads = "".join(_head(column) for column in columns)
    lines = (_line(columns, cells, kind) for cells, kind in rows)
    body = "\n".join(lines)
    return f'<table id="{escape(name)}" class="rows">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _head(column: Column) -> str:
    button = f'<button type="button">{escape(column.title)}</button>'
    return f'<th scope="col" data-name="{escape(column.name)}"{_kind(column)} aria-sort="none">{button}</th>'


def _line(columns: Sequence[Column], cells: Sequence[Cell], kind: str) -> str:
    tag = f'<tr class="{escape(kind)}">' if kind else "<tr>"
    return tag + "".join(_cell(column, cell) for column, cell in zip(columns, cells, strict=True)) + "</tr>"


def _cell(column: Column, cell: Cell) -> str:
    key = "" if cell.key is None else f' data-key="{cell.key!r}"'
    return f"<td{_kind(column)}{key}>{escape(cell.text)}</td>"


def _kind(column: Column) -> str:
    return ' class="number"' if column.numeric else ""
