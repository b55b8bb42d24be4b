"""Real numbers of any dtype as float32 or float64, without a silent loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .part import Rows

Numbers = NDArray[Any]


def is_real(dtype: np.dtype) -> bool:
    return dtype.kind in "biuf"


def convert(values: Numbers, dtype: np.dtype) -> Rows:
    """The values in that dtype; not a copy where they have it."""
    # A byte stored for a boolean may be any; as a number it is what it is.
    values = values.view(np.uint8) if values.dtype.kind == "b" else values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype, copy=False)


def lost(values: Numbers, converted: Rows) -> NDArray[np.bool_] | None:
    """Where `converted` is not what `values` were: whole numbers not kept exactly, finite ones that became inf; else None.

    Fractions are rounded, which is no loss.
    """
    if values.dtype.kind in "iu":
        if np.iinfo(values.dtype).max <= 2 ** (np.finfo(converted.dtype).nmant + 1):
            return None
        found = _inexact(values, converted)
    elif values.dtype.kind == "f" and values.dtype.itemsize > converted.dtype.itemsize:
        found = np.isinf(converted) & ~np.isinf(values)
    else:
        return None
    return found if found.any() else None


def _inexact(values: Numbers, converted: Rows) -> NDArray[np.bool_]:
    info = np.iinfo(values.dtype)
    # Exact in either dtype: powers of two. What rounds up to the end of the range cannot be turned back.
    inside = (converted >= float(info.min)) & (converted < float(int(info.max) + 1))
    return ~inside | (np.where(inside, converted, 0).astype(values.dtype) != values)
