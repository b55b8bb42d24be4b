"""Files of users' own data, told apart by their names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from ..options import FileOptions
from ..table import Table
from .csv import read_csv
from .idx import read_idx
from .labels import with_labels
from .npy import read_npy
from .npz import read_npz
from .parquet import read_parquet

Reader = Callable[[Path, FileOptions], dict[str, Table]]

READERS: dict[str, Reader] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
    ".parquet": read_parquet,
    ".pq": read_parquet,
    ".gz": read_idx,
    ".idx": read_idx,
}
# MNIST's files end in -idx3-ubyte, with a dot in some copies.
_IDX = re.compile(r"[-.]idx[1-3](-ubyte)?$", re.IGNORECASE)


def read(path: Path, options: FileOptions) -> dict[str, Table]:
    """The tables of a file: train, valid and test where it comes split, else one named ''.

    Raises DataError, naming the file, when it is missing, of no known kind, or does not hold what its kind should.
    """
    reader = _reader(path)
    try:
        tables = reader(path, options)
        if options.labels is None:
            return tables
        if list(tables) != [""] or tables[""].classes is not None:
            raise DataError(f"{path}: expected one array for the labels {options.labels}, found a file with parts of its own")
        return {"": with_labels(tables[""], Path(options.labels))}
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def _reader(path: Path) -> Reader:
    if not path.is_file():
        raise DataError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'none'}")
    if _IDX.search(path.name):
        return read_idx
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path}: expected a name that ends in {', '.join(READERS)} or -idx3-ubyte, found {path.name!r}")
    return READERS[path.suffix.lower()]
