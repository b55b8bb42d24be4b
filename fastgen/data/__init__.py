"""Data sets: shipped ones, each split into train, valid and test and the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

from .dataset import Dataset, Window
from .digits import digits
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
}


def load(name: str, *, seed: int = 0) -> Dataset:
    """The data set of that name, split by `seed`. Raises ValueError for another name."""
    if name not in DATASETS:
        raise ValueError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}")
    return DATASETS[name](seed=seed)


__all__ = [
    "DATASETS",
    "Dataset",
    "Part",
    "Source",
    "Window",
    "digits",
    "load",
    "moons",
    "patches",
    "pinwheel",
    "rings",
    "spirals",
]
