"""Rows that stay in their file but for the window that is being trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .part import Part, Rows, Source, window_rows
from .rowfile import RowFile
from .table import Table

Ranges = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MappedPart:
    """Rows of a large file, as ranges of consecutive rows that have been checked before.

    An epoch reads the ranges in random order and shuffles the rows within each window, so that the file is read in pieces
    and never held whole. Rows far apart in the file can share a batch; any two rows need not.

    ranges: (n, 2), the first row of each and the one behind its last.
    """

    table: Table
    dtype: np.dtype
    ranges: Ranges

    def __len__(self) -> int:
        return int(np.diff(self.ranges).sum())

    @property
    def features(self) -> int:
        return self.table.features

    @property
    def context_features(self) -> int:
        classes = self.table.classes
        return len(self.table.context) + (0 if classes is None else classes.count)

    @property
    def weighted(self) -> bool:
        return bool(self.table.weight)

    def read(self) -> Part:
        n = len(self)
        rows = np.empty((n, self.features), self.dtype)
        context = np.empty((n, self.context_features), self.dtype) if self.context_features else None
        weight = np.empty(n, self.dtype) if self.weighted else None
        at = 0
        for start, stop in self._pieces():
            to = slice(at, at + stop - start)
            at = to.stop
            if self._plain is not None:
                self._plain.read_into(start, rows[to])
                continue
            part = self.table.part(slice(start, stop), self.dtype)
            rows[to] = part.rows
            if context is not None:
                context[to] = part.context
            if weight is not None:
                weight[to] = part.weight
        return Part.trusted(rows, context, weight)

    def chunks(self) -> Iterator[Part]:
        for ranges in cut(self.ranges, window_rows(self, 1)):
            yield replace(self, ranges=ranges).read()

    def windows(self, rng: np.random.Generator, batch_size: int) -> Sequence[Source]:
        order = rng.permutation(len(self.ranges))
        return [replace(self, ranges=ranges) for ranges in cut(self.ranges[order], window_rows(self, batch_size))]

    @property
    def _plain(self) -> RowFile | None:
        """The file, where its rows are the features as they lie."""
        values = self.table.groups[0].values
        as_they_lie = self.table.groups[0].order is None and not self.table.context and not self.table.weight
        plain = as_they_lie and self.table.classes is None and values.dtype == self.dtype
        return values if plain and isinstance(values, RowFile) else None

    def _pieces(self) -> Iterator[tuple[int, int]]:
        step = self.table.block_rows
        for first, last in self.ranges.tolist():
            for start in range(first, last, step):
                yield start, min(start + step, last)


def mapped_parts(
    table: Table, dtype: np.dtype, dropped: NDArray[np.intp], groups: Sequence[NDArray[np.intp]], block_rows: int
) -> list[MappedPart]:
    """One part per group of blocks of `block_rows` rows, without the dropped rows."""
    ranges = whole_ranges(len(table), block_rows, dropped)
    block = ranges[:, 0] // block_rows
    return [MappedPart(table, dtype, ranges[np.isin(block, blocks)]) for blocks in groups]


def whole_ranges(rows: int, block_rows: int, dropped: NDArray[np.intp]) -> Ranges:
    """The ranges of rows that are left of blocks once these rows are dropped."""
    edges = np.arange(0, rows, block_rows)
    starts = np.sort(np.concatenate([edges, dropped + 1]))
    stops = np.sort(np.concatenate([np.minimum(edges + block_rows, rows), dropped]))
    return np.stack([starts, stops], axis=1)[starts < stops]


def cut(ranges: Ranges, rows: int) -> list[Ranges]:
    """Ranges, in order, as groups of that many rows; a range on an edge is cut in two.

    The last may have fewer, or one more: a last row alone joins the group before.
    """
    ends = np.concatenate([[0], np.diff(ranges).ravel().cumsum()])
    edges = np.arange(rows, ends[-1] - 1, rows)
    starts = np.union1d(ends, edges)
    of = np.searchsorted(ends, starts[:-1], side="right") - 1
    first = ranges[of, 0] + starts[:-1] - ends[of]
    pieces = np.stack([first, first + np.diff(starts)], axis=1)
    return np.split(pieces, np.searchsorted(starts[:-1], edges))


def as_rows(part: Part) -> Rows:
    """Features, context and weight side by side."""
    weight = None if part.weight is None else part.weight[:, None]
    return np.concatenate([a for a in (part.rows, part.context, weight) if a is not None], axis=1)
