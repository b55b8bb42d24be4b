"""The command `fastgen`."""

from .app import main

__all__ = ["main"]
