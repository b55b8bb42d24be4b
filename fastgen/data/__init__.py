"""Data sets: those known by name and users' own files, each split into train, valid and test, the same for the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .assemble import assemble
from .dataset import Dataset, Window
from .description import Description, describe_file, describe_named
from .digits import digits
from .errors import DataError
from .mapped import MappedPart
from .mnist import mnist
from .options import FileOptions, did_you_mean
from .part import Part, Source
from .patches import patches
from .toys import moons, pinwheel, rings, spirals

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "patches": patches,
    "moons": moons,
    "rings": rings,
    "spirals": spirals,
    "pinwheel": pinwheel,
    "mnist": mnist,
}
# What a set by name may be told beside the seed.
OPTIONS = {"mnist": ("dir", "labels"), "digits": ("labels",)}
SHIPPED = tuple(name for name in DATASETS if "dir" not in OPTIONS.get(name, ()))


def load(source: str | os.PathLike[str], *, seed: int = 0, **options: Any) -> Dataset:
    """The data set of that name, or of a file, split by `seed`.

    Args:
        source: a name of DATASETS, or a file: npy, npz, csv, IDX or Parquet, told apart by its name.
        seed: of the split, where the file does not come split, and of the noise on levels.
        options: as in FileOptions, for files; for mnist `dir`, the folder of its files; for mnist and digits `labels`.

    Raises:
        DataError: no such set or file, or one that does not hold what it should: with the file, the place in it, what was
            found and what was expected.
        TypeError: an option that does not exist.
    """
    if _is_named(source, options):
        return DATASETS[str(source)](seed=seed, **options)
    return assemble(Path(source), seed, FileOptions.parse(options)).data


def describe(source: str | os.PathLike[str], *, seed: int = 0, **options: Any) -> Description:
    """What `load` with the same arguments would train on, in figures. Missing values are told, not raised."""
    if _is_named(source, options):
        return describe_named(DATASETS[str(source)](seed=seed, **options), options.get("dir"))
    parsed = FileOptions.parse(options)
    found = assemble(Path(source), seed, replace(parsed, missing="drop"))
    problem = None
    if parsed.missing == "error":
        problem = next((checked.complaint for checked in found.checked if checked.complaint is not None), None)
    return describe_file(Path(source), found, problem)


def _is_named(source: str | os.PathLike[str], options: dict[str, Any]) -> bool:
    if not isinstance(source, str) or source not in DATASETS:
        if isinstance(source, str) and not os.path.exists(source) and not Path(source).suffix:
            names = ", ".join(DATASETS)
            raise DataError(f"data: expected a file or one of {names}, found {source!r}{did_you_mean(source, list(DATASETS))}")
        if "dir" in options:
            taking = ", ".join(name for name, taken in OPTIONS.items() if "dir" in taken)
            raise DataError(f"{source}: expected no dir, which is for {taking}, found {options['dir']}")
        return False
    taken = OPTIONS.get(source, ())
    unknown = [name for name in options if name not in taken]
    if unknown:
        expected = f"no options but {' and '.join(taken)}" if taken else "no options, which are for files"
        raise DataError(f"{source}: expected {expected}, found {', '.join(unknown)}")
    return True


__all__ = [
    "DATASETS",
    "SHIPPED",
    "DataError",
    "Dataset",
    "Description",
    "FileOptions",
    "MappedPart",
    "Part",
    "Source",
    "Window",
    "describe",
    "digits",
    "load",
    "mnist",
    "moons",
    "patches",
    "pinwheel",
    "rings",
    "spirals",
]
