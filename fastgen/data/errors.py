"""What is said of data that cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """Data, or an option of it, that is not what it should be; the message names the file and the place, on one line."""


def one_line(error: Exception) -> str:
    """What an error of another library says, short enough to end a message with."""
    return " ".join(str(error).split())[:200] or type(error).__name__
