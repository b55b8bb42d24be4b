"""Class labels, which lie in a file of their own."""

from __future__ import annotations

from pathlib import Path

from ..table import Table
from .arrays import with_classes
from .idx import idx_array
from .npy import read_body, read_header


def with_labels(table: Table, path: Path) -> Table:
    """The table with the classes of an IDX or npy file of whole numbers, one per row, as context."""
    if path.suffix != ".npy":
        return with_classes(table, str(path), idx_array(path))
    with open(path, "rb") as file:
        return with_classes(table, str(path), read_body(str(path), file, read_header(str(path), file, path.stat().st_size)))
