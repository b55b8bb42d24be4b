"""Parquet, read by pyarrow, which is an extra."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..columns import Selection, column_label, select
from ..convert import Numbers, convert, lost
from ..errors import DataError, one_line
from ..options import FileOptions
from ..part import Rows
from ..table import Table

BATCH_ROWS = 1 << 16
# Runs of one value take no room in the file, so that its size bounds nothing by itself.
EXPANSION = 1032
SMALL = 64 << 20


def read_parquet(path: Path, options: FileOptions) -> dict[str, Table]:
    """One table of the columns in use; null is a missing value."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path}: expected pyarrow to read Parquet with, found none: pip install fastgen[parquet]") from error
    try:
        with parquet.ParquetFile(path) as file:
            return {"": _table(str(path), file, options, os.stat(path).st_size)}
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected a Parquet file, found: {one_line(error)}") from error


def _table(where: str, file: Any, options: FileOptions, size: int) -> Table:
    schema = file.schema_arrow
    header = tuple(schema.names)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{where}: expected columns of different names, found {twice[0]!r} twice")
    selection = select(where, header, len(header), options)
    kinds = [schema.field(i).type for i in selection.used]
    for index, kind in zip(selection.used, kinds, strict=True):
        if not _is_number(kind):
            raise DataError(f"{where}: expected numbers, found {str(kind)[:60]} ({column_label(header, index)})")
    rows, dtype = file.metadata.num_rows, np.dtype(options.dtype)
    declared = rows * len(kinds) * dtype.itemsize
    if not 0 < declared <= max(SMALL, EXPANSION * size):
        raise DataError(f"{where}: expected numbers that {size} bytes can hold, found {rows} rows of {len(kinds)} columns")
    values = _values(where, file, selection, np.empty((rows, len(kinds)), dtype))
    return Table.of(where, values, selection, packed=True, bytes=all(map(_is_byte, kinds[: len(selection.features)])))


def _values(where: str, file: Any, selection: Selection, values: Rows) -> Rows:
    start = 0
    for batch in _batches(file, selection):
        stop = start + batch.num_rows
        if stop > len(values):
            break
        for position, index in enumerate(selection.used):
            numbers, missing = _numbers(batch.column(position))
            column = convert(numbers, values.dtype)
            bad = lost(numbers, column)
            if bad is not None:
                row = int(np.argmax(bad))
                kind = "whole numbers that {} holds exactly" if numbers.dtype.kind in "iu" else "numbers in the range of {}"
                place = f"row {start + row}, {column_label(selection.header, index)}"
                raise DataError(f"{where}: expected {kind.format(values.dtype)}, found {numbers[row]} ({place})")
            values[start:stop, position] = np.where(missing, np.nan, column)
        start = stop
    if start != len(values):
        raise DataError(f"{where}: expected {len(values)} rows as its end declares, found another number")
    return values


def _batches(file: Any, selection: Selection) -> Iterator[Any]:
    """Batches of the columns in use, in the selection's order."""
    names = [selection.header[i] for i in selection.used] if selection.header else []
    for batch in file.iter_batches(BATCH_ROWS, columns=names):
        yield batch.select(names)


def _numbers(column: Any) -> tuple[Numbers, Numbers | bool]:
    """The numbers of a column, and where they are missing."""
    import pyarrow as arrow

    if arrow.types.is_decimal(column.type):
        column = column.cast(arrow.float64())
    if arrow.types.is_floating(column.type):
        # nan where they are missing.
        return column.to_numpy(zero_copy_only=False), False
    if arrow.types.is_boolean(column.type):
        column = column.cast(arrow.uint8())
    return column.fill_null(0).to_numpy(zero_copy_only=False), column.is_null().to_numpy(zero_copy_only=False)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return any(is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal))


def _is_byte(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_uint8(kind))
