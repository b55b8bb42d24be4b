"""Which rows are of one thing at several sizes: what a row's shape says of its place in such a series."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .rows import Row

AXES = ("features", "width", "depth", "batch")

_SWEPT = re.compile(rf"({'|'.join(AXES)}) = (\d+): (.*)")
_DEPTH = re.compile(r"(\d+) x hidden")


class Series(NamedTuple):
    """What the rows of a series have in common; `rest` is all of the shape but the size."""

    operation: str
    mode: str
    candidate: str
    quantity: str
    instructions: str
    dtype: str
    axis: str
    rest: str


def shape_of(axis: str, size: int, rest: str) -> str:
    """The shape that a row at this size of an axis has."""
    return f"{axis} = {size}: {rest}"


def series(rows: Iterable[Row]) -> dict[Series, dict[int, Row]]:
    """The series of at least two sizes among the rows, each by size, rising.

    Shapes as `shape_of` makes them, or with a depth as in "256 x 64, 5 x hidden 512 x 2".
    """
    found: dict[Series, dict[int, Row]] = {}
    for row in rows:
        place = _place(row.shape)
        if place is not None and row.value > 0:
            axis, size, rest = place
            key = Series(row.operation, row.mode, row.candidate, row.quantity, row.instructions, row.dtype, axis, rest)
            found.setdefault(key, {})[size] = row
    return {key: dict(sorted(points.items())) for key, points in found.items() if len(points) > 1}


def _place(shape: str) -> tuple[str, int, str] | None:
    if swept := _SWEPT.fullmatch(shape):
        return swept[1], int(swept[2]), swept[3]
    if depth := _DEPTH.search(shape):
        return "depth", int(depth[1]), f"{shape[: depth.start()]}n x hidden{shape[depth.end() :]}"
    return None
