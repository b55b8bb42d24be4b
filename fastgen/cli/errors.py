"""Errors of the user's: one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A command that cannot be carried out as given; the message names the option or file."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Reports a ValueError raised inside, which names what was wrong, as the user's error."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error
