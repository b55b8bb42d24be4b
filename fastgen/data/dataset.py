"""What every data set is: three sets of rows, and what their numbers stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set split into train, valid and test: float32 (rows, features).

    levels: where given, `train` holds whole grey levels 0 to levels - 1 and every epoch adds noise of its own (`epoch`);
        `valid` and `test` have theirs already, the same for a seed.
    image_shape: (height, width) where a row is an image, or all of one but the last pixel (see `images`).
    grey_level: for images, the size of one grey level in the units of the rows: what turns nats into bits per dimension.
    """

    name: str
    seed: int
    train: Rows
    valid: Rows
    test: Rows
    levels: int | None = None
    image_shape: tuple[int, int] | None = None
    grey_level: float | None = None

    def __post_init__(self) -> None:
        for part, rows in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != self.train.shape[1] or rows.shape[1] == 0:
                raise ValueError(f"{part}: expected at least one row and one feature, as train has, found shape {rows.shape}")
            if rows.dtype != np.float32:
                raise TypeError(f"{part}: expected float32, found {rows.dtype}")
            if not np.isfinite(rows).all():
                raise ValueError(f"{part}: expected finite numbers, found nan or inf")

    @property
    def features(self) -> int:
        return self.train.shape[1]

    def epoch(self, rng: np.random.Generator) -> Rows:
        """The rows to train on in one epoch, in the order of `train`: with fresh noise where the set has grey levels."""
        return self.train if self.levels is None else dequantise(self.train, rng)

    def images(self, rows: Rows) -> Rows:
        """Rows as images (rows, height, width). Where the last pixel was dropped it is minus the sum of the others."""
        if self.image_shape is None:
            raise ValueError(f"data: expected a set of images, found {self.name}")
        height, width = self.image_shape
        if rows.shape[1] == height * width - 1:
            rows = np.concatenate([rows, -rows.sum(axis=1, keepdims=True)], axis=1)
        return rows.reshape(-1, height, width)

    def bits_per_dim(self, nats_per_dim: float) -> float | None:
        """Bits per dimension of a log-density in nats per dimension, in units of one grey level; None unless images.

        The discrete pixels' own likelihood is at least this good (Theis et al. 2016, section 3.1).
        """
        return None if self.grey_level is None else -(nats_per_dim + math.log(self.grey_level)) / math.log(2)


def dequantise(levels: NDArray[np.floating], rng: np.random.Generator) -> Rows:
    """Whole numbers plus uniform noise in [0, 1), as float32: a density of the result bounds the pixels' likelihood."""
    exact = levels.astype(np.float32)
    noisy = exact + rng.random(levels.shape, dtype=np.float32)
    # The sum may round up to the next level.
    return np.minimum(noisy, np.nextafter(exact + 1, np.float32(0)))


def cuts(rows: int, seed: int, valid: float = 0.1, test: float = 0.2) -> tuple[NDArray[np.intp], ...]:
    """The indices of train, valid and test among `rows` rows, shuffled by `seed`. Fractions of the whole."""
    order = np.random.default_rng(seed).permutation(rows)
    n_test, n_valid = round(rows * test), round(rows * valid)
    return order[n_test + n_valid :], order[n_test : n_test + n_valid], order[:n_test]
