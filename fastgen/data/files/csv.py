"""Text with a row of numbers on each line, separated by comma, semicolon or tab, with or without a header."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TextIO

import numpy as np

from ..columns import Selection, column_label, select
from ..convert import convert
from ..errors import DataError, one_line
from ..options import FileOptions
from ..part import Rows
from ..table import Table

SEPARATORS = ("\t", ";", ",")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
# A line is held whole, as text of each of its cells.
LINE_CHARACTERS = 1 << 24
CHUNK_CELLS = 1 << 16

_WHOLE = re.compile(r"([+-]?)0*([0-9]{1,309})")
_QUOTED = re.compile(r'"[^"]*"')


def read_csv(path: Path, options: FileOptions) -> dict[str, Table]:
    """One table. Lines count from 1, and empty ones are skipped."""
    where = str(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = _lines(where, file)
            number, text = next(lines, (0, ""))
            if not number:
                raise DataError(f"{where}: expected lines of numbers, found none")
            split = _splitter(where, text)
            cells = split(number, text)
            header = None if all(map(_is_number, cells)) else tuple(cell.strip() for cell in cells)
            selection = select(where, header, len(cells), options)
            rows = _Rows(where, len(cells), selection, np.dtype(options.dtype))
            if header is None:
                rows.add(number, cells)
            for number, text in lines:
                rows.add(number, split(number, text))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected text in UTF-8, found {_undecodable(path)}") from error
    return {"": rows.table()}


def _lines(where: str, file: TextIO) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    number = 0
    while text := file.readline(LINE_CHARACTERS + 1):
        number += 1
        if len(text) > LINE_CHARACTERS:
            raise DataError(f"{where}: expected lines of at most {LINE_CHARACTERS} characters, found more (line {number})")
        if text.strip(" \n"):
            yield number, text.rstrip("\n")


def _splitter(where: str, first: str) -> Callable[[int, str], list[str]]:
    """What turns a line into cells, with the separator of the first line."""
    unquoted = _QUOTED.sub("", first)
    separator = next((s for s in SEPARATORS if s in unquoted), ",")

    def split(number: int, text: str) -> list[str]:
        if '"' not in text:
            return text.split(separator)
        try:
            return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(
                f"{where}: expected cells with their quotes closed, found: {one_line(error)} (line {number})"
            ) from error

    return split


class _Rows:
    """The numbers of the columns in use, line by line."""

    def __init__(self, where: str, width: int, selection: Selection, dtype: np.dtype) -> None:
        self.where, self.width, self.selection, self.dtype = where, width, selection, dtype
        used = selection.used
        everything = used == tuple(range(width))
        self.pick: Callable[[list[str]], Sequence[str]] | None = None if everything else _picker(used)
        self.cells: list[str] = []
        self.blocks: list[Rows] = []
        self.lines = array("q")

    def add(self, line: int, cells: list[str]) -> None:
        if len(cells) != self.width:
            raise DataError(f"{self.where}: expected {self.width} columns, found {len(cells)} (line {line})")
        self.cells.extend(cells if self.pick is None else self.pick(cells))
        self.lines.append(line)
        if len(self.cells) >= CHUNK_CELLS:
            self.flush()

    def flush(self) -> None:
        """Turns the cells that wait into numbers."""
        try:
            _refuse_underscores(self.cells)
            values = np.array(list(map(float, self.cells)))
        except ValueError:
            values = np.array([self.number(i, cell) for i, cell in enumerate(self.cells)])
        self.expect_exact(values)
        self.blocks.append(values.reshape(-1, len(self.selection.used)))
        self.cells.clear()

    def number(self, index: int, cell: str) -> float:
        if cell.strip().lower() in MISSING:
            return np.nan
        try:
            _refuse_underscores([cell])
            return float(cell)
        except ValueError:
            shown = repr(cell if len(cell) <= 40 else f"{cell[:40]}...")
            raise DataError(f"{self.where}: expected a number, found {shown} ({self.place(index)})") from None

    def expect_exact(self, values: Rows) -> None:
        """Whole numbers are what is written, or an error; fractions are rounded."""
        largest = 2.0 ** (np.finfo(self.dtype).nmant + 1)
        for index in np.flatnonzero((np.abs(values) > largest) & np.isfinite(values)).tolist():
            cell = self.cells[index].strip()
            found = _WHOLE.fullmatch(cell)
            if found and int(found[1] + found[2]) != float(convert(values[index], self.dtype)):
                expected = f"whole numbers that {self.dtype} holds exactly"
                raise DataError(f"{self.where}: expected {expected}, found {cell[:40]} ({self.place(index)})")

    def place(self, index: int) -> str:
        width = len(self.selection.used)
        column = self.selection.used[index % width]
        line = self.lines[len(self.lines) - len(self.cells) // width + index // width]
        return f"line {line}, {column_label(self.selection.header, column)}"

    def table(self) -> Table:
        if self.cells:
            self.flush()
        if not self.blocks:
            raise DataError(f"{self.where}: expected lines of numbers, found a header only")
        values = np.concatenate(self.blocks)
        return Table.of(self.where, values, self.selection, packed=True, lines=np.array(self.lines, np.int64))


def _undecodable(path: Path) -> str:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} (line {number})"
    return "a file that changed meanwhile"


def _refuse_underscores(cells: Sequence[str]) -> None:
    """float reads 1_000 as a number, which a table does not mean."""
    if "_" in "".join(cells):
        raise ValueError


def _picker(used: tuple[int, ...]) -> Callable[[list[str]], Sequence[str]]:
    return itemgetter(*used) if len(used) > 1 else lambda cells: [cells[used[0]]]


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
