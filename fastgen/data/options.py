"""What may be said of a file of data: the keys of a configuration's [data]."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import DataError

Column = str | int
DTYPES = ("float32", "float64")
MISSING = ("error", "drop")


@dataclass(frozen=True)
class FileOptions:
    """How a file becomes a data set. Columns are named, or counted from 0; -1 is the last.

    context: columns that are the context.
    columns: the feature columns; None for all that are neither context nor weight.
    weight: the column that tells how much each row counts.
    labels: a file (IDX or npy) with a class 0, 1, ... per row, which is appended to the context, one-hot.
    dtype: what the numbers become, "float32" or "float64".
    missing: rows with a missing value, nan or inf are an "error", or one is to "drop" them.
    valid, test: fractions of the rows, where the file does not come split.
    levels: the number of levels of data in whole numbers from 0; None for 2 where all is 0 and 1, 256 where the file
        holds bytes, and none elsewhere.
    image_shape: (height, width) where a row is an image and the file does not tell.
    mapped: whether rows stay in the file until they are needed; None for that where an npy file is large.

    Raises DataError, naming the option, for another value.
    """

    context: tuple[Column, ...] = ()
    columns: tuple[Column, ...] | None = None
    weight: Column | None = None
    labels: str | None = None
    dtype: str = "float32"
    missing: str = "error"
    valid: float = 0.1
    test: float = 0.1
    levels: int | None = None
    image_shape: tuple[int, int] | None = None
    mapped: bool | None = None

    def __post_init__(self) -> None:
        for name in ("context", "columns"):
            object.__setattr__(self, name, _columns(name, getattr(self, name)))
        if self.weight is not None:
            _expect("weight", "a column's name or index", self.weight, _is_column(self.weight))
        _expect("columns", "at least one column", self.columns, self.columns != ())
        _expect("labels", "a file with a class per row", self.labels, not isinstance(self.labels, bool))
        if self.labels is not None:
            object.__setattr__(self, "labels", str(self.labels))
        _expect("dtype", " or ".join(DTYPES), self.dtype, self.dtype in DTYPES)
        _expect("missing", " or ".join(MISSING), self.missing, self.missing in MISSING)
        for name in ("valid", "test"):
            fraction = getattr(self, name)
            _expect(name, "a fraction between 0 and 1", fraction, _is_real(fraction) and 0 < fraction < 1)
        _expect("valid + test", "less than 1", self.valid + self.test, self.valid + self.test < 1)
        if self.levels is not None:
            _expect("levels", "at least 2", self.levels, _is_whole(self.levels) and self.levels >= 2)
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", _shape(self.image_shape))
        _expect("mapped", "true or false", self.mapped, self.mapped in (None, True, False))

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> FileOptions:
        """The options of these names. Raises TypeError for one that does not exist, with the nearest that does."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"expected an option among {', '.join(known)}, found {name!r}{did_you_mean(name, known)}")
        return cls(**options)


def did_you_mean(name: str, known: list[str]) -> str:
    """The nearest of the known names, as the end of a message; nothing where none is near."""
    nearest = difflib.get_close_matches(name, known[:10000], 1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _expect(name: str, expected: str, found: object, holds: bool) -> None:
    if not holds:
        raise DataError(f"{name}: expected {expected}, found {found!r}")


def _columns(name: str, found: Any) -> tuple[Column, ...] | None:
    if found is None and name == "columns":
        return None
    columns = (found,) if _is_column(found) else tuple(found) if isinstance(found, list | tuple) else None
    _expect(name, "names or indices of columns", found, columns is not None and all(map(_is_column, columns)))
    return columns


def _shape(found: Any) -> tuple[int, int]:
    holds = isinstance(found, list | tuple) and len(found) == 2 and all(_is_whole(edge) and edge > 0 for edge in found)
    _expect("image_shape", "a height and a width", found, holds)
    return found[0], found[1]


def _is_column(value: object) -> bool:
    return isinstance(value, str) or _is_whole(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)
