"""Handwritten digits, 8x8 pixels of 17 grey levels: scikit-learn's copy of the UCI test set (Alpaydin & Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset, cuts
from .errors import DataError
from .part import Part

LEVELS = 17


def digits(*, seed: int = 0, labels: bool = False) -> Dataset:
    """1797 digits of 64 pixels in units of one grey level, 70% train, 10% valid, 20% test by `seed`.

    Rows hold whole grey levels 0 to 16. Three pixels are the same in every image.

    labels: whether the digit that a row shows is its context, one number from 0 to 9.

    Raises DataError for other labels than true or false.
    """
    if not isinstance(labels, bool):
        raise DataError(f"labels: expected true or false for digits, found {labels!r}")
    # Slow to import, and needed by those who ask for this set only.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    found = load_digits()
    pixels = found.data.astype(np.float32)
    part = Part(pixels, found.target.astype(np.float32)[:, None] if labels else None)
    train, valid, test = (part.take(rows) for rows in cuts(len(pixels), seed))
    return Dataset(
        name="digits",
        seed=seed,
        train=train,
        valid=valid,
        test=test,
        levels=LEVELS,
        image_shape=(8, 8),
        grey_level=1.0,
        context_columns=("digit",) if labels else None,
    )
