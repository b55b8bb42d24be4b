"""Rows that stay in their file until they are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .convert import Numbers
from .errors import DataError


@dataclass(frozen=True)
class RowFile:
    """An array in C order within a file, of which slices of rows are read.

    Rows are read at their position in the file and not mapped: what was read before takes no memory of the process, and
    a file that shrinks is an error and no fault. Reading releases the interpreter lock.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    written: tuple[int, int]

    @classmethod
    def of(cls, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> RowFile:
        return cls(path, offset, shape, dtype, _written(os.stat(path)))

    def reshape(self, rows: int, columns: int) -> RowFile:
        return replace(self, shape=(rows, columns))

    def __getitem__(self, rows: slice, /) -> Numbers:
        start, stop, _ = rows.indices(self.shape[0])
        found = np.empty((stop - start, self.shape[1]), self.dtype)
        self.read_into(start, found)
        return found

    def read_into(self, start: int, rows: Numbers) -> None:
        """Fills an array of this dtype with the rows from `start` on.

        Raises DataError when the file cannot be read, or changed since it was opened first.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                whole = _written(os.fstat(descriptor)) == self.written
                whole = whole and _fill(descriptor, rows.data.cast("B"), self.offset + start * rows[0].nbytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"{self.path}: expected to read on, found: {error.strerror or error}") from error
        if not whole:
            raise DataError(f"{self.path}: expected the file as it was when it was opened, found it changed")


def _written(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _fill(descriptor: int, buffer: memoryview, position: int) -> bool:
    read = 0
    while read < len(buffer):
        count = os.preadv(descriptor, [buffer[read:]], position + read)
        if not count:
            return False
        read += count
    return True
