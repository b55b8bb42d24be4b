"""Arrays of a file as tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..columns import select
from ..convert import Numbers
from ..errors import DataError
from ..options import FileOptions
from ..rowfile import RowFile
from ..table import Classes, Group, Table
from .layout import layout


def array_table(where: str, values: Numbers | RowFile, shape: tuple[int, ...], options: FileOptions) -> Table:
    """The table of one array: columns without names, in the roles that the options give them."""
    rows, width, image_shape = layout(where, shape)
    matrix = values.reshape(rows, width)
    selection = select(where, None, width, options)
    table = Table.of(where, matrix, selection, bytes=matrix.dtype == np.uint8)
    return replace(table, image_shape=image_shape) if table.features == width else table


def with_context(table: Table, where: str, values: Numbers) -> Table:
    """The table with these columns appended to its context."""
    rows, width, _ = layout(where, values.shape)
    _expect_rows(table, where, rows)
    group = Group(values.reshape(rows, width), tuple(f"column {i} of {where}" for i in range(width)))
    first = len(table.labels)
    return replace(table, groups=(*table.groups, group), context=(*table.context, *range(first, first + width)))


def with_weight(table: Table, where: str, values: Numbers) -> Table:
    """The table with a weight (rows,)."""
    if values.ndim != 1:
        raise DataError(f"{where}: expected weights of one axis, found shape {values.shape}")
    if table.weight:
        raise DataError(f"{where}: expected one weight per row, found a weight column as well")
    _expect_rows(table, where, len(values))
    group = Group(values[:, None], (f"column 0 of {where}",))
    return replace(table, groups=(*table.groups, group), weight=(len(table.labels),))


# What one-hot context may take: classes of pictures number a thousand at most, and larger numbers are no classes.
CLASSES = 1000


def with_classes(table: Table, where: str, values: Numbers) -> Table:
    """The table with classes (rows,), one more than the largest."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(f"{where}: expected classes as whole numbers of one axis, found {values.dtype} {values.shape}")
    _expect_rows(table, where, len(values))
    bad = (values < 0) | (values >= CLASSES)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{where}: expected classes from 0 to {CLASSES - 1}, found {values[row]} (row {row})")
    return replace(table, classes=Classes(values.astype(np.intp), int(values.max()) + 1))


def _expect_rows(table: Table, where: str, rows: int) -> None:
    if rows != len(table):
        raise DataError(f"{where}: expected {len(table)} rows as {table.where} has, found {rows}")
