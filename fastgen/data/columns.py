"""Which columns of a file are features, context and weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import DataError
from .options import Column, FileOptions, did_you_mean


@dataclass(frozen=True)
class Selection:
    """The columns of a file in use, by index, with what the file calls all of its columns (None where it has no names)."""

    header: tuple[str, ...] | None
    features: tuple[int, ...]
    context: tuple[int, ...]
    weight: tuple[int, ...]

    @property
    def used(self) -> tuple[int, ...]:
        """Features, then context, then the weight."""
        return self.features + self.context + self.weight

    def names(self) -> tuple[str, ...] | None:
        """What the file calls the columns in use; None where it has no names."""
        return None if self.header is None else tuple(self.header[i] for i in self.used)

    def labels(self) -> tuple[str, ...]:
        """How messages call the columns in use."""
        return tuple(column_label(self.header, i) for i in self.used)


def column_label(header: Sequence[str] | None, index: int) -> str:
    return f"column {header[index][:60]!r}" if header else f"column {index}"


def select(where: str, header: tuple[str, ...] | None, width: int, options: FileOptions) -> Selection:
    """The columns that the options ask for, among `width`.

    Raises DataError, naming the file, for a column that does not exist, that is asked for twice, or when no feature is left.
    """
    taken: dict[int, str] = {}

    def find(role: str, columns: Sequence[Column]) -> tuple[int, ...]:
        indices = tuple(_index(where, role, header, width, column) for column in columns)
        for index in indices:
            if index in taken:
                twice = role if taken[index] == role else f"{taken[index]} and {role}"
                raise DataError(f"{where}: expected each column once, found {column_label(header, index)} twice in {twice}")
            taken[index] = role
        return indices

    context = find("context", options.context)
    weight = find("weight", () if options.weight is None else (options.weight,))
    others = tuple(i for i in range(width) if i not in taken)
    features = others if options.columns is None else find("columns", options.columns)
    if not features:
        raise DataError(f"{where}: expected at least one feature column, found none beside {len(taken)} for context and weight")
    return Selection(header, features, context, weight)


def _index(where: str, role: str, header: tuple[str, ...] | None, width: int, column: Column) -> int:
    if isinstance(column, str) and header is not None and column in header:
        if header.count(column) > 1:
            raise DataError(f"{where}: expected one column {column!r} for {role}, found {header.count(column)}; use its index")
        return header.index(column)
    # Numbers that come as text, as from a command line, count columns where no name is the same.
    if isinstance(column, str) and not re.fullmatch(r"-?[0-9]{1,9}", column):
        if header is None:
            raise DataError(f"{where}: expected an index for {role}, found {column!r} where columns have no names")
        raise DataError(f"{where}: expected a column {column!r} for {role}, found none{did_you_mean(column, list(header))}")
    index = int(column)
    if not -width <= index < width:
        raise DataError(f"{where}: expected an index from {-width} to {width - 1} for {role}, found {index}")
    return index % width
