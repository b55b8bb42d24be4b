"""What samples are conditioned on, as the command line gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UserError

FILES = (".npy", ".csv")


def read_context(given: str | None, features: int) -> NDArray[np.float64] | None:
    """Numbers parted by commas as (features,), or the rows of a .npy or .csv file as (n, features); None for no context.

    Raises UserError where the model takes another.
    """
    if given is None and features == 0:
        return None
    expected = f"expected {features} numbers such as 1.0,0.5, or a .npy or .csv file with rows of them"
    if given is None:
        raise UserError(f"--context: {expected}, found none")
    if features == 0:
        raise UserError(f"--context: expected none for a model without context, found {given!r}")
    try:
        context = _rows(Path(given)) if Path(given).suffix in FILES else np.array([float(v) for v in given.split(",")])
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UserError(f"--context: {expected}, found {given!r}: {error}") from error
    if context.ndim > 2 or context.shape[-1:] != (features,) or len(context) == 0:
        raise UserError(f"--context: {expected}, found shape {context.shape}")
    if not np.isfinite(context).all():
        raise UserError(f"--context: expected finite numbers, found {context[~np.isfinite(context)][0]}")
    return context


def _rows(path: Path) -> NDArray[np.float64]:
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    # Mapped: a header that promises more than the file holds is refused before memory is taken.
    return np.load(path, allow_pickle=False, mmap_mode="r").astype(np.float64)
