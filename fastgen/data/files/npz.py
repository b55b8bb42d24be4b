"""NumPy's npz format: a zip archive of npy files, without pickle."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

from ..convert import Numbers
from ..dataset import PARTS
from ..errors import DataError, one_line
from ..options import FileOptions
from ..table import Table
from .arrays import array_table, with_classes, with_context, with_weight
from .npy import read_body, read_header
from .stream import expect_expansion

EXTRAS = ("context", "weight", "labels")
_ENCRYPTED = 1


def read_npz(path: Path, options: FileOptions) -> dict[str, Table]:
    """A table for each of train, valid and test, or one of the only array.

    An array named after another one, with _context, _weight or _labels behind, belongs to it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(path, archive)
    # What zipfile raises for archives that were made to be wrong is not documented to the last.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, LookupError, ArithmeticError, struct.error) as error:
        raise _broken(path, error) from error
    except ValueError as error:
        raise error if isinstance(error, DataError) else _broken(path, error) from error
    return _tables(path, arrays, options)


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: expected an npz file (a zip archive), found: {one_line(error)}")


def _arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, Numbers]:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    main, known = _names(str(path), list(members))
    for name in members:
        if name not in known:
            beside = f"{main[0]} and its {', '.join(EXTRAS)}" if len(main) == 1 else f"{', '.join(main)} and their extras"
            raise DataError(f"{path}: expected {beside}, found {name[:60]!r} as well")
    packed = sum(member.compress_size for member in members.values())
    if packed > os.stat(path).st_size:
        raise DataError(f"{path}: expected members within the file's {os.stat(path).st_size} bytes, found {packed} declared")
    return {name: _read(f"{path}: {name}", archive, member) for name, member in members.items()}


def _names(where: str, names: list[str]) -> tuple[tuple[str, ...], set[str]]:
    """The arrays that hold rows, and all that may stand beside them."""
    found = [name for name in names if not name.endswith(tuple(f"_{extra}" for extra in EXTRAS))]
    main = PARTS if set(PARTS) <= set(found) else tuple(found)
    if main != PARTS and len(main) != 1:
        shown = ", ".join(name[:60] for name in names[:10]) or "none"
        raise DataError(f"{where}: expected arrays train, valid and test, or one array, found {shown}")
    return main, {*main, *(f"{name}_{extra}" for name in main for extra in EXTRAS)}


def _read(where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Numbers:
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: expected a stored or deflated member, found another compression or encryption")
    expect_expansion(where, member.file_size, member.compress_size)
    with archive.open(member) as stream:
        return read_body(where, stream, read_header(where, stream, member.file_size))


def _tables(path: Path, arrays: dict[str, Numbers], options: FileOptions) -> dict[str, Table]:
    main, _ = _names(str(path), list(arrays))
    tables = {}
    for name in main:
        table = array_table(f"{path}: {name}", arrays[name], arrays[name].shape, options)
        for extra, attach in (("context", with_context), ("weight", with_weight)):
            if f"{name}_{extra}" in arrays:
                table = attach(table, f"{path}: {name}_{extra}", arrays[f"{name}_{extra}"])
        if f"{name}_labels" in arrays:
            table = with_classes(table, f"{path}: {name}_labels", arrays[f"{name}_labels"])
        tables["" if len(main) == 1 else name] = table
    return tables
