"""What is said of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """Data, or an option of it, that is not what it should be; the message names the file and the place, on one line."""
