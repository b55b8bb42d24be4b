"""Errors of the user's: one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A command that cannot be carried out as given; the message names the option or file."""


class Stopped(Exception):
    """A command that a signal ended in order; the message says what is left to do."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
