"""What every data set is: three parts, and what their numbers stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .part import Part, Rows, Source

PARTS = ("train", "valid", "test")

# What is drawn of the rows each time they are handed out.
Draw = Callable[[Rows, np.random.Generator], Rows]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set split into train, valid and test.

    levels: where given, the rows hold whole levels 0 to levels - 1: grey levels of pixels, or 2 for yes and no.
    noise: whether levels get noise from U[0, 1) where they are handed out (`epoch`, `held_out`), as a density needs.
    grey_levels: where given, the rows hold whole levels 0 to grey_levels - 1 and are handed out as 0 and 1 (see `binarised`).
    image_shape: (height, width) where a row is an image, or all of one but the last pixel (see `images`).
    grey_level: for images, the size of one grey level in the units of the rows: what turns nats into bits per dimension.
    columns, context_columns: names of the features and of the context, where the file has any.
    """

    name: str
    seed: int
    train: Source
    valid: Source
    test: Source
    levels: int | None = None
    noise: bool = True
    image_shape: tuple[int, int] | None = None
    grey_level: float | None = None
    columns: tuple[str, ...] | None = None
    context_columns: tuple[str, ...] | None = None
    grey_levels: int | None = None

    def __post_init__(self) -> None:
        for name in PARTS:
            part: Source = getattr(self, name)
            for what in ("features", "context_features", "weighted", "dtype"):
                if getattr(part, what) != getattr(self.train, what):
                    expected, found = getattr(self.train, what), getattr(part, what)
                    raise ValueError(f"{name}: expected {what} {expected} as train has, found {found}")

    @property
    def features(self) -> int:
        return self.train.features

    @property
    def context_features(self) -> int:
        return self.train.context_features

    def discrete(self) -> Dataset:
        """The same set without noise on its levels, for probabilities in place of densities."""
        return replace(self, noise=False)

    def binarised(self) -> Dataset:
        """The same set with ones in place of levels, each with probability level / (levels - 1), and zeros: drawn anew in every
        epoch, held-out rows the same every time (Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief
        networks").

        Raises ValueError for a set without levels.
        """
        if self.levels is None:
            raise ValueError(f"data: expected rows of levels to binarise, found none in {self.name}")
        if self.grey_levels is not None or self.levels == 2:
            return self.discrete()
        return replace(self, noise=False, levels=2, grey_levels=self.levels, grey_level=None)

    def epoch(self, number: int, batch_size: int, seed: int) -> list[Window]:
        """What to train on in epoch `number`: the rows in an order, and with noise, that only these numbers rule."""
        windows = self.train.windows(np.random.default_rng([seed, number]), batch_size)
        return [Window(source, self._draw, (seed, number, i)) for i, source in enumerate(windows)]

    def held_out(self, name: str) -> Iterator[Part]:
        """The rows of a part, in order and in pieces; noise on levels is the same every time."""
        rng = np.random.default_rng([self.seed, PARTS.index(name)])
        for part in getattr(self, name).chunks():
            yield _drawn(part, self._draw, rng)

    @property
    def _draw(self) -> Draw | None:
        if self.grey_levels is not None:
            return partial(binarise, grey_levels=self.grey_levels)
        return dequantize if self.levels is not None and self.noise else None

    def images(self, rows: Rows) -> Rows:
        """Rows as images (rows, height, width). Where the last pixel was dropped it is minus the sum of the others."""
        if self.image_shape is None:
            raise ValueError(f"data: expected a set of images, found {self.name}")
        height, width = self.image_shape
        if rows.shape[1] == height * width - 1:
            rows = np.concatenate([rows, -rows.sum(axis=1, keepdims=True)], axis=1)
        return rows.reshape(-1, height, width)

    def bits_per_dim(self, nats_per_dim: float) -> float | None:
        """Bits per dimension of a log-likelihood in nats per dimension, in units of one grey level; None unless images.

        Of a density this bounds the discrete pixels' own likelihood (Theis et al. 2016, section 3.1).
        """
        return None if self.grey_level is None else -(nats_per_dim + math.log(self.grey_level)) / math.log(2)


@dataclass(frozen=True)
class Window:
    """Rows to train on that fit in memory together: whole batches, but for the last window of an epoch."""

    source: Source
    draw: Draw | None
    seed: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source)

    def read(self) -> Part:
        """The rows, shuffled and with noise as the seed rules."""
        rng = np.random.default_rng(self.seed)
        part = self.source.read()
        return _drawn(part.take(rng.permutation(len(part))), self.draw, rng)


def _drawn(part: Part, draw: Draw | None, rng: np.random.Generator) -> Part:
    return part if draw is None else replace(part, rows=draw(part.rows, rng))


def binarise(levels: Rows, rng: np.random.Generator, *, grey_levels: int) -> Rows:
    """1 with probability level / (grey_levels - 1), else 0, in the dtype of the levels."""
    uniform = rng.random(levels.shape, dtype=levels.dtype.type)
    return (uniform * (grey_levels - 1) < levels).astype(levels.dtype)


def dequantize(levels: Rows, rng: np.random.Generator) -> Rows:
    """Whole numbers plus uniform noise in [0, 1), in their dtype: a density of the result bounds the pixels' likelihood."""
    dtype = levels.dtype.type
    noisy = levels + rng.random(levels.shape, dtype=dtype)
    # The sum may round up to the next level.
    return np.minimum(noisy, np.nextafter(levels + 1, dtype(0)))


def cuts(rows: int, seed: int, valid: float = 0.1, test: float = 0.2) -> tuple[NDArray[np.intp], ...]:
    """The indices of train, valid and test among `rows` rows, shuffled by `seed`. Fractions of the whole."""
    order = np.random.default_rng(seed).permutation(rows)
    n_test, n_valid = round(rows * test), round(rows * valid)
    return order[n_test + n_valid :], order[n_test : n_test + n_valid], order[:n_test]
