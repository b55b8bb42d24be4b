"""Arrays as files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..io import write_atomically


def write_array(path: Path, array: NDArray[np.floating]) -> None:
    """Writes numbers, atomically: as .npy, or as .csv with a value per column. Raises FileError."""
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, array, allow_pickle=False)
    else:
        # Digits enough to tell apart any two numbers of the dtype.
        np.savetxt(content, array, fmt=f"%.{np.finfo(array.dtype).precision + 3}g", delimiter=",")
    write_atomically(path, content.getvalue())
