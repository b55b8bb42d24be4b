"""8x8 patches of scikit-learn's two photographs, prepared as BSDS300 is by Papamakarios et al. 2017, section 4."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, dequantize
from .part import Part, Rows

EDGE = 8
LEVELS = 256
# A photograph is cut into vertical bands as high as it is. Patches keep inside one, and the gap between bands is a patch wide.
BANDS = 10
VALID_BANDS = 1
TEST_BANDS = 2
STRIDE = 2
_LUMA = np.array([0.299, 0.587, 0.114])


def patches(*, seed: int = 0) -> Dataset:
    """Patches of 63 dimensions in units of the full grey scale, split by region of the photographs.

    Grey levels get uniform noise, are scaled to [0, 1] and lose their patch's mean; the last pixel, which then follows
    from the others, is dropped. `seed` chooses the bands of valid and test, and the noise.
    """
    # Slow to import, and needed by those who ask for this set only.
    from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

    rng = np.random.default_rng(seed)
    parts: tuple[list[Rows], ...] = ([], [], [])
    for photograph in load_sample_images().images:
        grey = np.rint(photograph @ _LUMA)
        for part, bands in zip(parts, split_bands(rng), strict=True):
            part.extend(prepare(dequantize(band_patches(grey, band).astype(np.float32), rng)) for band in bands)
    # Shuffled: neighbours in a photograph look alike, and whoever reads the first rows is to see them all.
    train, valid, test = (Part(rng.permutation(np.concatenate(part))) for part in parts)
    return Dataset(
        name="patches",
        seed=seed,
        train=train,
        valid=valid,
        test=test,
        image_shape=(EDGE, EDGE),
        grey_level=1 / LEVELS,
    )


def split_bands(rng: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    """The bands of train, valid and test."""
    order = rng.permutation(BANDS).tolist()
    held_out = VALID_BANDS + TEST_BANDS
    return order[held_out:], order[:VALID_BANDS], order[VALID_BANDS:held_out]


def band_patches(grey: NDArray[np.float64], band: int) -> NDArray[np.float64]:
    """The patches (rows, 64) of one band of a grey photograph (height, width)."""
    width = grey.shape[1] // BANDS
    region = grey[:, band * width : (band + 1) * width - EDGE]
    windows = np.lib.stride_tricks.sliding_window_view(region, (EDGE, EDGE))[::STRIDE, ::STRIDE]
    return windows.reshape(-1, EDGE * EDGE)


def prepare(pixels: Rows) -> Rows:
    """Dequantized grey levels (rows, 64) scaled to [0, 1], without their mean and without the last pixel."""
    scaled = pixels.astype(np.float64) / LEVELS
    return (scaled - scaled.mean(axis=1, keepdims=True))[:, :-1].astype(np.float32)
