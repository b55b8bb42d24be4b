"""Rows as a file holds them, before they are checked and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from .columns import Selection
from .convert import Numbers, convert, lost
from .errors import DataError
from .part import Part, Rows

# What a pass over a file handles at a time, in bytes.
BLOCK_BYTES = 1 << 20


class Matrix(Protocol):
    """Numbers (rows, columns), in memory or in a file; a slice of rows is an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: slice, /) -> Numbers: ...


@dataclass(frozen=True, eq=False)
class Group:
    """Columns that lie side by side.

    values: (rows, width).
    labels: how messages call each column in use.
    order: which columns of the values those are; None for all.
    """

    values: Matrix
    labels: tuple[str, ...]
    order: tuple[int, ...] | None = None

    def pick(self, rows: slice | NDArray[np.intp]) -> Numbers:
        found = self.values[rows]  # type: ignore[index]
        return found if self.order is None else found[:, self.order]


@dataclass(frozen=True, eq=False)
class Classes:
    """A class per row, in whole numbers below `count`."""

    values: NDArray[np.intp]
    count: int

    def one_hot(self, rows: slice | NDArray[np.intp], dtype: np.dtype) -> Rows:
        return np.eye(self.count, dtype=dtype)[self.values[rows]]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with the role of each column, as groups that stand side by side.

    where: the file, and the array in it, as messages begin.
    features: how many there are; they are the first columns of the first group.
    context, weight: positions among the columns of all groups; one weight at most.
    classes: where given, what is appended to the context, one-hot.
    lines: of a text file, the line of each row.
    names: what the file calls the columns of the first group; None where it has no names.
    image_shape: (height, width) where the file holds images.
    bytes: whether all features are whole numbers of one byte.
    """

    where: str
    groups: tuple[Group, ...]
    features: int
    context: tuple[int, ...] = ()
    weight: tuple[int, ...] = ()
    classes: Classes | None = None
    lines: NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None
    image_shape: tuple[int, int] | None = None
    bytes: bool = False
    labels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(label for group in self.groups for label in group.labels))

    @classmethod
    def of(
        cls,
        where: str,
        values: Matrix,
        selection: Selection,
        *,
        packed: bool = False,
        lines: NDArray[np.int64] | None = None,
        bytes: bool = False,
    ) -> Table:
        """The columns of one matrix in the roles of a selection. packed: whether it holds those alone, in order."""
        whole = packed or selection.used == tuple(range(values.shape[1]))
        features, used = len(selection.features), len(selection.used)
        weight = used - len(selection.weight)
        return cls(
            where,
            (Group(values, selection.labels(), None if whole else selection.used),),
            features,
            context=tuple(range(features, weight)),
            weight=tuple(range(weight, used)),
            lines=lines,
            names=selection.names(),
            bytes=bytes,
        )

    def __len__(self) -> int:
        return self.groups[0].values.shape[0]

    @property
    def called(self) -> tuple[str, ...]:
        """The names of all columns, and what messages call those without."""
        names = self.names or ()
        return names + self.labels[len(names) :]

    @property
    def block_rows(self) -> int:
        """The rows that a pass handles at a time."""
        return max(1, BLOCK_BYTES // sum(group.values.shape[1] * group.values.dtype.itemsize for group in self.groups))

    def block(self, start: int, dtype: np.dtype) -> Rows:
        """The columns of all groups, for `block_rows` rows from `start` on.

        Raises DataError, naming the place, for a number that the dtype cannot hold.
        """
        rows = slice(start, start + self.block_rows)
        return _beside([self._checked(i, rows, dtype) for i in range(len(self.groups))])

    def part(self, rows: slice | NDArray[np.intp], dtype: np.dtype) -> Part:
        """These rows by their roles. Their numbers are not looked at: only for rows that a pass has checked."""
        together = _beside([convert(group.pick(rows), dtype) for group in self.groups])
        context = [together[:, self.context]] if self.context else []
        if self.classes is not None:
            context.append(self.classes.one_hot(rows, dtype))
        return Part.trusted(
            np.ascontiguousarray(together[:, : self.features]),
            _beside(context) if context else None,
            together[:, self.weight[0]].copy() if self.weight else None,
        )

    def refuse(self, row: int, column: int, expected: str, found: str) -> NoReturn:
        """Raises the DataError of one number."""
        raise DataError(self.complaint(row, column, expected, found))

    def complaint(self, row: int, column: int, expected: str, found: str) -> str:
        return f"{self.where}: expected {expected}, found {found} ({self.row_label(row)}, {self.labels[column]})"

    def row_label(self, row: int) -> str:
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"

    def _checked(self, index: int, rows: slice, dtype: np.dtype) -> Rows:
        values = self.groups[index].pick(rows)
        converted = convert(values, dtype)
        bad = lost(values, converted)
        if bad is not None:
            row, column = np.argwhere(bad)[0].tolist()
            before = sum(len(group.labels) for group in self.groups[:index])
            kind = "whole numbers that {} holds exactly" if values.dtype.kind in "iu" else "numbers in the range of {}"
            self.refuse(rows.start + row, before + column, kind.format(dtype), str(values[row, column]))
        return converted


def _beside(columns: Sequence[Rows]) -> Rows:
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
