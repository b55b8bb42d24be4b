"""The IDX format of MNIST, gzipped or not: two zero bytes, a type, the number of axes, the axes, and the numbers."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from ..convert import Numbers
from ..errors import DataError, one_line
from ..options import FileOptions
from ..table import Table
from .arrays import array_table
from .stream import expect_expansion, read_array

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: Path, options: FileOptions) -> dict[str, Table]:
    array = idx_array(path)
    return {"": array_table(str(path), array, array.shape, options)}


def idx_array(path: Path) -> Numbers:
    """The array of an IDX file."""
    where, size = str(path), os.stat(path).st_size
    with _opened(path) as (stream, packed):
        shape, dtype = _header(where, stream)
        declared = math.prod(shape) * dtype.itemsize
        if packed:
            expect_expansion(where, declared, size)
        elif declared != size - 4 - 4 * len(shape):
            found = size - 4 - 4 * len(shape)
            raise DataError(f"{where}: expected {declared} bytes of numbers for shape {shape}, found {found}")
        return read_array(where, stream, shape, dtype)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], bool]]:
    """The stream of the bytes behind gzip, and whether there was any."""
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        try:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file, packed
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: expected a whole gzip file, found: {one_line(error)}") from error


def _header(where: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= 3:
        expected = "0000, a type from 08 to 0e and 1 to 3 axes"
        raise DataError(f"{where}: expected an IDX file that starts with {expected}, found {magic.hex() or 'nothing'}")
    axes = stream.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise DataError(f"{where}: expected {magic[3]} axes of 4 bytes, found {len(axes)} bytes")
    return struct.unpack(f">{magic[3]}I", axes), np.dtype(DTYPES[magic[2]])
