"""Rows in memory, and what every source of rows answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Source(Protocol):
    """Rows of features, with a context and a weight each where there are any, in memory or not."""

    def __len__(self) -> int: ...

    @property
    def features(self) -> int: ...

    @property
    def context_features(self) -> int:
        """The width of a row's context; 0 for none."""

    @property
    def weighted(self) -> bool: ...

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64: what its rows are once in memory."""

    def read(self) -> Part:
        """All of it, in memory."""

    def chunks(self) -> Iterator[Part]:
        """All of it, in order, in pieces that fit in memory."""

    def windows(self, rng: np.random.Generator, batch_size: int) -> Sequence[Source]:
        """All of it in pieces that fit in memory, in an order drawn from `rng`; each but the last of whole batches.

        A last row that would be alone joins the piece before, as it joins the batch before.
        """


# What a window takes in memory: 64 times what is read of a file in one piece, so that its rows come from all over it.
WINDOW_BYTES = 64 << 20


def window_rows(source: Source, batch_size: int) -> int:
    """The rows of a window: whole batches, at least one."""
    row_bytes = (source.features + source.context_features + source.weighted) * source.dtype.itemsize
    return max(1, WINDOW_BYTES // row_bytes // batch_size) * batch_size


@dataclass(frozen=True, eq=False)
class Part:
    """Rows in memory: float32 or float64, all arrays of one dtype and length.

    rows: (n, features).
    context: (n, context features), what each row is conditioned on; None for none.
    weight: (n,), how much each row counts, at least 0; None for all alike.

    Raises ValueError or TypeError, naming the array, for another shape or dtype, nan, inf, or a negative weight.
    """

    rows: Rows
    context: Rows | None = None
    weight: Rows | None = None

    def __post_init__(self) -> None:
        n = len(self.rows)
        for name, array, axes in (("rows", self.rows, 2), ("context", self.context, 2), ("weight", self.weight, 1)):
            if array is None:
                continue
            if array.dtype not in DTYPES or array.dtype != self.rows.dtype:
                raise TypeError(f"{name}: expected float32 or float64, all arrays alike, found {array.dtype}")
            if array.ndim != axes or len(array) != n or 0 in array.shape:
                expected = "at least one row and column" if name == "rows" else f"{axes} axes and {n} rows"
                raise ValueError(f"{name}: expected {expected}, found shape {array.shape}")
            if not np.isfinite(array).all():
                place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise ValueError(f"{name}: expected finite numbers, found {array[place]} at {list(place)}")
        if self.weight is not None and not ((self.weight >= 0).all() and self.weight.sum() > 0):
            raise ValueError("weight: expected numbers of at least 0, not all 0")

    @classmethod
    def trusted(cls, rows: Rows, context: Rows | None = None, weight: Rows | None = None) -> Part:
        """A part of arrays that are known to be as they should: nothing is checked."""
        part = object.__new__(cls)
        for name, array in (("rows", rows), ("context", context), ("weight", weight)):
            object.__setattr__(part, name, array)
        return part

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def features(self) -> int:
        return self.rows.shape[1]

    @property
    def context_features(self) -> int:
        return 0 if self.context is None else self.context.shape[1]

    @property
    def weighted(self) -> bool:
        return self.weight is not None

    @property
    def dtype(self) -> np.dtype:
        return self.rows.dtype

    def read(self) -> Part:
        return self

    def chunks(self) -> Iterator[Part]:
        yield self

    def windows(self, rng: np.random.Generator, batch_size: int) -> Sequence[Source]:
        """Itself, where that is no more than a window takes: else its rows in random order, without a copy of them all."""
        rows = window_rows(self, batch_size)
        if len(self) <= rows:
            return [self]
        return [Picked(self, index) for index in np.split(rng.permutation(len(self)), range(rows, len(self) - 1, rows))]

    def take(self, index: NDArray[np.intp]) -> Part:
        """The rows of these indices."""
        return Part.trusted(
            self.rows[index],
            None if self.context is None else self.context[index],
            None if self.weight is None else self.weight[index],
        )


@dataclass(frozen=True, eq=False)
class Picked:
    """Some rows of a part, by index, which are copied when they are read."""

    part: Part
    index: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def features(self) -> int:
        return self.part.features

    @property
    def context_features(self) -> int:
        return self.part.context_features

    @property
    def weighted(self) -> bool:
        return self.part.weighted

    @property
    def dtype(self) -> np.dtype:
        return self.part.dtype

    def read(self) -> Part:
        return self.part.take(self.index)

    def chunks(self) -> Iterator[Part]:
        yield self.read()

    def windows(self, rng: np.random.Generator, batch_size: int) -> Sequence[Source]:
        return [self]
