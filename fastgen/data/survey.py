"""What the columns of a data set hold, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .part import Rows
from .table import Table

_F64 = np.float64


class Survey:
    """Per column: the least and the largest number, mean and standard deviation, and what is missing.

    Rows with a missing value, nan or inf count for nothing else. Moments in float64, merged block by block (Chan et al. 1983).

    rows: how many were whole.
    missing: (columns,), missing values, nan and inf of each.
    """

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.missing = np.zeros(columns, np.int64)
        self.minimum = np.full(columns, np.inf)
        self.maximum = np.full(columns, -np.inf)
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)

    @property
    def std(self) -> NDArray[np.float64]:
        """The population's standard deviation."""
        return np.sqrt(self._squares / max(self.rows, 1))

    def add(self, block: Rows) -> NDArray[np.bool_] | None:
        """Takes in rows. Returns which of them were whole; None for all."""
        low, high = block.min(axis=0), block.max(axis=0)
        whole: NDArray[np.bool_] | None = None
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = np.isfinite(block)
            self.missing += (~finite).sum(axis=0)
            whole = np.asarray(finite.all(axis=1))
            block = block[whole]
            low, high = block.min(axis=0, initial=np.inf), block.max(axis=0, initial=-np.inf)
        if len(block):
            self.minimum, self.maximum = np.minimum(self.minimum, low), np.maximum(self.maximum, high)
            mean, squares = _moments(block)
            self._merge(len(block), mean, squares)
        return whole

    def merge(self, other: Survey) -> None:
        """Takes in what another one took in."""
        self.missing += other.missing
        self.minimum, self.maximum = np.minimum(self.minimum, other.minimum), np.maximum(self.maximum, other.maximum)
        if other.rows:
            self._merge(other.rows, other.mean, other._squares)

    def _merge(self, rows: int, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        total = self.rows + rows
        with np.errstate(over="ignore", invalid="ignore"):
            change = mean - self.mean
            self._squares += squares + change**2 * (self.rows * rows / total)
            self.mean = self.mean + change * (rows / total)
        self.rows = total


def _moments(block: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = block.mean(axis=0, dtype=_F64)
        centred = block - mean
        return mean, np.einsum("ij,ij->j", centred, centred)


class Checked:
    """What one pass over a table found.

    survey: of all columns that its groups hold.
    dropped: the rows that were not whole, in order.
    levels: 2 where all features are 0 and 1, 256 where they are bytes; else None.
    complaint: what is wrong with the first row that is not whole; None where all are.
    """

    def __init__(self, table: Table, dtype: np.dtype, levels: int | None) -> None:
        self.survey = Survey(len(table.labels))
        self.complaint: str | None = None
        self._table, self._binary, self._levels = table, True, levels
        dropped = []
        for start in range(0, len(table), table.block_rows):
            block = table.block(start, dtype)
            whole = self.survey.add(block)
            if whole is not None:
                dropped.append(start + np.flatnonzero(~whole))
                self.complaint = self.complaint or _missing(table, start, block)
                block = block[whole]
            self._check(block, start, whole)
        self.dropped = np.concatenate(dropped) if dropped else np.zeros(0, np.intp)

    @property
    def levels(self) -> int | None:
        if self._levels is not None:
            return self._levels
        return 2 if self._binary else 256 if self._table.bytes else None

    def kept(self) -> NDArray[np.intp]:
        """The rows that were whole, in order."""
        return np.delete(np.arange(len(self._table)), self.dropped)

    def _check(self, block: Rows, start: int, whole: NDArray[np.bool_] | None) -> None:
        features = block[:, : self._table.features]
        if self._levels is not None:
            bad = (features < 0) | (features > self._levels - 1) | (features != np.rint(features))
            self._refuse_first(bad, 0, block, start, whole, f"whole numbers from 0 to {self._levels - 1}")
        elif self._binary:
            self._binary = bool(((features == 0) | (features == 1)).all())
        for column in self._table.weight:
            self._refuse_first(block[:, [column]] < 0, column, block, start, whole, "weights of at least 0")

    def _refuse_first(
        self, bad: NDArray[np.bool_], first: int, block: Rows, start: int, whole: NDArray[np.bool_] | None, expected: str
    ) -> None:
        if bad.any():
            row, column = np.argwhere(bad)[0].tolist()
            place = row if whole is None else int(np.flatnonzero(whole)[row])
            self._table.refuse(start + place, first + column, expected, f"{block[row, first + column]:.9g}")


def check(table: Table, dtype: np.dtype, levels: int | None, missing: str) -> Checked:
    """One pass over a table. Raises DataError, naming the place, for a number that cannot be used."""
    checked = Checked(table, dtype, levels)
    if checked.complaint is not None and missing == "error":
        raise DataError(checked.complaint)
    return checked


def _missing(table: Table, start: int, block: Rows) -> str:
    row, column = np.argwhere(~np.isfinite(block))[0].tolist()
    value = block[row, column]
    found = "a missing value" if table.lines is not None and np.isnan(value) else str(value)
    return table.complaint(start + row, column, "finite numbers", found)
