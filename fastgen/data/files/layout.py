"""Arrays as rows."""

from __future__ import annotations

from ..errors import DataError


def layout(where: str, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, int] | None]:
    """The number of rows and columns of an array, and the shape of an image where it holds images.

    Raises DataError for an array without rows or columns, or of more than three axes.
    """
    if not 1 <= len(shape) <= 3 or 0 in shape:
        expected = "rows (n,), (n, features) or (n, height, width), at least one"
        raise DataError(f"{where}: expected {expected}, found shape {shape}")
    if len(shape) == 3:
        return shape[0], shape[1] * shape[2], (shape[1], shape[2])
    return shape[0], 1 if len(shape) == 1 else shape[1], None
