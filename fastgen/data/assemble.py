"""Data sets out of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .dataset import PARTS, Dataset, cuts
from .errors import DataError
from .files import read
from .mapped import mapped_parts
from .options import FileOptions
from .part import Part, Source
from .rowfile import RowFile
from .survey import Checked, check
from .table import Classes, Table

# A part is made of whole blocks of a file that stays mapped; of so many at least, so that fractions hold to one in that many.
BLOCKS = 200


@dataclass(frozen=True, eq=False)
class Assembled:
    """A data set with what the pass over its file found, per table."""

    data: Dataset
    tables: tuple[Table, ...]
    checked: tuple[Checked, ...]


def assemble(path: Path, seed: int, options: FileOptions) -> Assembled:
    """The data set of a file. Raises DataError, naming the file and the place."""
    tables = _alike(path, read(path, options))
    dtype = np.dtype(options.dtype)
    checked = {name: check(table, dtype, options.levels, options.missing) for name, table in tables.items()}
    for name, table in tables.items():
        if len(table) == len(checked[name].dropped):
            raise DataError(f"{table.where}: expected a row of finite numbers, found none among {len(table)}")
    levels = _levels(list(checked.values()))
    table = next(iter(tables.values()))
    image_shape = options.image_shape or table.image_shape
    if image_shape is not None and image_shape[0] * image_shape[1] != table.features:
        raise DataError(f"{path}: expected {image_shape[0]}x{image_shape[1]} pixels a row, found {table.features} features")
    if set(tables) == set(PARTS):
        parts: Sequence[Source] = [_part(tables[name], checked[name].kept(), dtype) for name in PARTS]
    else:
        parts = _split(table, checked[""], seed, options)
    train, valid, test = parts
    data = Dataset(
        name=path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name,
        seed=seed,
        train=train,
        valid=valid,
        test=test,
        levels=levels,
        image_shape=image_shape,
        grey_level=1.0 if image_shape and levels else None,
        columns=None if table.names is None else table.names[: table.features],
        context_columns=_context_columns(table),
    )
    return Assembled(data, tuple(tables.values()), tuple(checked.values()))


def _alike(path: Path, tables: dict[str, Table]) -> dict[str, Table]:
    """The tables with as many classes each. Raises DataError where their columns differ."""
    first = next(iter(tables.values()))
    for name, table in tables.items():
        for what in ("features", "context", "weight", "image_shape"):
            expected, found = getattr(first, what), getattr(table, what)
            if found != expected:
                raise DataError(f"{table.where}: expected {what} {_count(expected)} as train has, found {_count(found)}")
        if (table.classes is None) != (first.classes is None):
            raise DataError(f"{path}: expected labels for each part or for none, found some of {name} or train only")
    classes = max((table.classes.count for table in tables.values() if table.classes), default=0)
    return {name: replace(table, classes=_of(table.classes, classes)) for name, table in tables.items()}


def _count(what: object) -> object:
    return len(what) if isinstance(what, tuple) else what


def _of(classes: Classes | None, count: int) -> Classes | None:
    return None if classes is None else replace(classes, count=count)


def _levels(checked: Sequence[Checked]) -> int | None:
    """The levels of the table that has most; None where one has none."""
    levels = [one.levels for one in checked]
    return None if None in levels else max(level for level in levels if level is not None)


def _context_columns(table: Table) -> tuple[str, ...] | None:
    """Names of the context, where the file has any; a class's is class=0, class=1, ..."""
    if table.names is None and table.classes is None:
        return None
    own = tuple(table.called[i] for i in table.context)
    return own + tuple(f"class={i}" for i in range(table.classes.count if table.classes else 0))


def _split(table: Table, checked: Checked, seed: int, options: FileOptions) -> Sequence[Source]:
    if isinstance(table.groups[0].values, RowFile):
        return _mapped(table, checked, seed, options)
    dtype = np.dtype(options.dtype)
    kept = checked.kept()
    indices = cuts(len(kept), seed, options.valid, options.test)
    _expect_rows(table, [len(index) for index in indices])
    return [_part(table, kept[index], dtype) for index in indices]


def _mapped(table: Table, checked: Checked, seed: int, options: FileOptions) -> Sequence[Source]:
    for column in table.weight:
        _expect_weight(table, checked.survey.maximum[column] > 0)
    block_rows = max(1, min(table.block_rows, len(table) // BLOCKS))
    blocks = cuts(-(-len(table) // block_rows), seed, options.valid, options.test)
    parts = mapped_parts(table, np.dtype(options.dtype), checked.dropped, blocks, block_rows)
    _expect_rows(table, [len(part) for part in parts])
    return parts


def _expect_rows(table: Table, rows: Sequence[int]) -> None:
    if 0 in rows:
        shown = ", ".join(map(str, rows))
        raise DataError(f"{table.where}: expected a row at least in each of train, valid and test, found {shown}")


def _part(table: Table, rows: NDArray[np.intp], dtype: np.dtype) -> Part:
    part = table.part(rows, dtype)
    _expect_weight(table, part.weight is None or bool(part.weight.any()))
    return part


def _expect_weight(table: Table, found: bool) -> None:
    if not found:
        raise DataError(f"{table.where}: expected weights that are not all 0 in train, valid and test, found 0 only")
