"""NumPy's npy format, without pickle; see numpy.lib.format."""

from __future__ import annotations

import io
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..convert import Numbers, is_real
from ..errors import DataError
from ..options import FileOptions
from ..rowfile import RowFile
from ..table import Table
from .arrays import array_table
from .stream import read_array

# Numbers need a header of 128 bytes at most; more is text that nobody should have to parse.
HEADER_BYTES = 4096
MAPPED_BYTES = 512 << 20

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """The start of an npy file. bytes: its own length."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    bytes: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npy(path: Path, options: FileOptions) -> dict[str, Table]:
    """One table; where the file is large, or the options ask for it, its rows stay in the file."""
    where, size = str(path), os.stat(path).st_size
    with open(path, "rb") as file:
        header = read_header(where, file, size)
        if _mapped(where, header, options):
            values: Numbers | RowFile = RowFile.of(path, header.bytes, header.shape, header.dtype)
        else:
            values = read_body(where, file, header)
    return {"": array_table(where, values, header.shape, options)}


def read_header(where: str, stream: IO[bytes], size: int) -> Header:
    """The header, with the stream left behind it. `size`: the bytes of the whole.

    Raises DataError unless it declares real numbers that take exactly the bytes that follow.
    """
    try:
        start = _start(stream)
        version = np.lib.format.read_magic(start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = _HEADERS[version](start, max_header_size=HEADER_BYTES)
    # numpy reads Python literals here, and what that raises for text made to overwhelm it is not documented.
    except Exception as error:
        raise DataError(f"{where}: expected an npy file with a header of version 1 or 2, found none") from error
    if not is_real(dtype):
        raise DataError(f"{where}: expected an array of real numbers, found dtype {str(dtype)[:60]}")
    header = Header(tuple(map(int, shape)), dtype, fortran_order, start.tell())
    if min(header.shape, default=0) < 0 or header.bytes + header.data_bytes != size:
        expected = f"{header.data_bytes} bytes of numbers for shape {_short(header.shape)}"
        raise DataError(f"{where}: expected {expected} and dtype {dtype}, found {size - header.bytes}")
    return header


def _start(stream: IO[bytes]) -> io.BytesIO:
    """What lies before the numbers, and no more of the stream; cut where its declared length is not to be believed."""
    magic = stream.read(8)
    length = stream.read(2 if magic[6:7] == b"\1" else 4)
    return io.BytesIO(magic + length + stream.read(min(int.from_bytes(length, "little"), HEADER_BYTES)))


def read_body(where: str, stream: IO[bytes], header: Header) -> Numbers:
    """The array that follows a header."""
    if header.fortran_order:
        return read_array(where, stream, header.shape[::-1], header.dtype).T
    return read_array(where, stream, header.shape, header.dtype)


def _mapped(where: str, header: Header, options: FileOptions) -> bool:
    if options.mapped and header.fortran_order:
        raise DataError(f"{where}: expected rows in C order to leave them in the file, found Fortran order")
    large = header.data_bytes > MAPPED_BYTES and not header.fortran_order
    return large if options.mapped is None else options.mapped


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"of {len(shape)} axes"
