"""MNIST (LeCun et al. 1998), 28x28 pixels of 256 grey levels, out of a folder with its own files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .dataset import Dataset, cuts
from .errors import DataError
from .files import read
from .options import FileOptions
from .part import Part

LEVELS = 256
EDGE = 28
# Of the file that is split: a tenth to choose the best epoch by, and another to report on where there is no file of those.
HELD_OUT = 0.1
FEWEST = 10


def mnist(*, seed: int = 0, dir: str | os.PathLike[str] | None = None, labels: bool = False) -> Dataset:
    """Digits of 784 pixels in units of one grey level, as whole levels 0 to 255.

    With train-images in the folder 90% of it is train and 10% valid, by `seed`, and t10k-images is test; with t10k-images
    alone the first 80% of its rows are train, the next 10% valid and the last 10% test.

    Args:
        dir: the folder of the IDX files, gzipped or not, named as they are handed out: train-images-idx3-ubyte.gz, ...
        labels: whether the digit that a row shows is its context, one number from 0 to 9, out of train-labels and t10k-labels.

    Raises:
        DataError: no folder, a file that is missing, or one that does not hold what it should.
    """
    if not isinstance(labels, bool):
        raise DataError(f"labels: expected true or false for mnist, found {labels!r}")
    folder = _folder(dir)
    held_out = _part(folder, "t10k", labels)
    if _found(folder, "train-images", 3) is None:
        train, valid, test = _in_order(held_out)
    else:
        train, valid = _by_seed(_part(folder, "train", labels), seed)
        test = held_out
    return Dataset(
        name="mnist",
        seed=seed,
        train=train,
        valid=valid,
        test=test,
        levels=LEVELS,
        image_shape=(EDGE, EDGE),
        grey_level=1.0,
        context_columns=("digit",) if labels else None,
    )


def _folder(dir: str | os.PathLike[str] | None) -> Path:
    if dir is None:
        raise DataError("mnist: expected the folder of its files (dir, by --data-dir DIR or --set dir=DIR), found none")
    if not os.path.isdir(dir):
        raise DataError(f"{dir}: expected a folder with {_names('t10k-images', 3)}, found {_kind(dir)}")
    return Path(dir)


def _kind(path: str | os.PathLike[str]) -> str:
    return "a file" if os.path.exists(path) else "none"


def _names(stem: str, axes: int) -> str:
    return f"{stem}-idx{axes}-ubyte or {stem}-idx{axes}-ubyte.gz"


def _found(folder: Path, stem: str, axes: int) -> Path | None:
    """The file of that name in the folder, gzipped or not, in either of the spellings it is handed out with."""
    names = (f"{stem}{mark}idx{axes}-ubyte{packed}" for mark in "-." for packed in ("", ".gz"))
    return next((path for name in names if (path := folder / name).is_file()), None)


def _file(folder: Path, stem: str, axes: int) -> Path:
    path = _found(folder, stem, axes)
    if path is None:
        raise DataError(f"{folder}: expected a file {_names(stem, axes)}, found none")
    return path


def _part(folder: Path, name: str, labels: bool) -> Part:
    """All rows of one of the two files of images."""
    path = _file(folder, f"{name}-images", 3)
    table = read(path, FileOptions(labels=str(_file(folder, f"{name}-labels", 1)) if labels else None))[""]
    if table.image_shape != (EDGE, EDGE) or not table.bytes:
        found = table.image_shape and "x".join(map(str, table.image_shape))
        raise DataError(f"{path}: expected images of {EDGE}x{EDGE} bytes, found {found or 'none'}")
    rows = table.part(slice(None), np.dtype(np.float32)).rows
    digits = None if table.classes is None else table.classes.values.astype(np.float32)[:, None]
    return Part(rows, digits)


def _in_order(part: Part) -> list[Part]:
    rows, held_out = np.arange(_count(part)), round(len(part) * HELD_OUT)
    return [part.take(piece) for piece in np.split(rows, [len(rows) - 2 * held_out, len(rows) - held_out])]


def _by_seed(part: Part, seed: int) -> list[Part]:
    train, valid, _ = cuts(_count(part), seed, HELD_OUT, 0.0)
    return [part.take(train), part.take(valid)]


def _count(part: Part) -> int:
    if len(part) < FEWEST:
        raise DataError(f"mnist: expected at least {FEWEST} images to split, found {len(part)}")
    return len(part)
