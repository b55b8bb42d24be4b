"""Arrays out of streams of bytes, never larger than the bytes that are there."""

from __future__ import annotations

import math
from typing import IO

import numpy as np

from ..convert import Numbers
from ..errors import DataError

PIECE = 1 << 20
# The most that deflate, of gzip and zip, can shrink: 258 bytes to 2 bits.
EXPANSION = 1032


def expect_expansion(where: str, declared: int, packed: int) -> None:
    """Raises DataError when that many packed bytes cannot hold the declared ones."""
    largest = EXPANSION * packed
    if declared > largest:
        raise DataError(f"{where}: expected at most {largest} bytes out of {packed} packed ones, found {declared} declared")


def read_array(where: str, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> Numbers:
    """An array in C order, which is all that is left of the stream."""
    array = np.empty(shape, dtype)
    expected = math.prod(shape) * dtype.itemsize
    # memoryview cannot cast an array without elements.
    buffer = array.data.cast("B") if expected else memoryview(b"")
    read = 0
    while read < expected:
        piece = stream.read(min(PIECE, expected - read))
        if not piece:
            break
        buffer[read : read + len(piece)] = piece
        read += len(piece)
    if read < expected or stream.read(1):
        found = "more" if read == expected else str(read)
        raise DataError(f"{where}: expected {expected} bytes of numbers for shape {shape}, found {found}")
    return array
