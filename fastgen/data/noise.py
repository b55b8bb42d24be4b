"""Rows of standard normal noise, for models that train on what they draw themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .dataset import Dataset
from .part import Part, window_rows

# Seeds of windows are drawn below this.
_SEEDS = 2**63


@dataclass(frozen=True)
class Noise:
    """Rows that are drawn when they are read: as a whole always the same, in windows of other noise for every generator.

    An epoch is made of windows, so that no two epochs of a run have rows in common, and the same epoch has the same rows
    whenever it is run.
    """

    rows: int
    features: int
    seed: int
    dtype: np.dtype

    context_features = 0
    weighted = False

    def __len__(self) -> int:
        return self.rows

    def read(self) -> Part:
        return Part.trusted(np.random.default_rng(self.seed).standard_normal((self.rows, self.features), dtype=self.dtype))

    def chunks(self) -> Iterator[Part]:
        for part in self._split(window_rows(self, 1), np.random.default_rng(self.seed)):
            yield part.read()

    def windows(self, rng: np.random.Generator, batch_size: int) -> Sequence[Noise]:
        return self._split(window_rows(self, batch_size), rng)

    def _split(self, size: int, rng: np.random.Generator) -> list[Noise]:
        sizes = [min(size, self.rows - begin) for begin in range(0, self.rows, size)]
        return [Noise(rows, self.features, int(rng.integers(_SEEDS)), self.dtype) for rows in sizes]


def noise_data(features: int, rows: int, held_out: int, seed: int, dtype: np.dtype, name: str = "noise") -> Dataset:
    """Noise as a data set: `rows` rows an epoch, fresh in each, and as many held-out ones for each other part.

    Raises ValueError, naming the argument, for fewer than one row.
    """
    for what, count in (("rows", rows), ("held_out", held_out)):
        if count < 1:
            raise ValueError(f"{what}: expected at least 1, found {count}")
    seeds = np.random.default_rng(seed).integers(_SEEDS, size=3).tolist()
    train, valid, test = (Noise(n, features, own, dtype) for n, own in zip((rows, held_out, held_out), seeds, strict=True))
    return Dataset(name, seed, train, valid, test)
