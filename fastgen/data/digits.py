"""Handwritten digits, 8x8 pixels of 17 grey levels: scikit-learn's copy of the UCI test set (Alpaydin & Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from .dataset import Dataset, cuts
from .part import Part

LEVELS = 17


def digits(*, seed: int = 0) -> Dataset:
    """1797 digits of 64 pixels in units of one grey level, 70% train, 10% valid, 20% test by `seed`.

    Rows hold whole grey levels 0 to 16. Three pixels are the same in every image.
    """
    # Slow to import, and needed by those who ask for this set only.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    pixels = load_digits().data.astype(np.float32)
    train, valid, test = (Part(pixels[rows]) for rows in cuts(len(pixels), seed))
    return Dataset(
        name="digits",
        seed=seed,
        train=train,
        valid=valid,
        test=test,
        levels=LEVELS,
        image_shape=(8, 8),
        grey_level=1.0,
    )
