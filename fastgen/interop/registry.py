"""Which accelerated class stands for a module, from the file of its library."""

from __future__ import annotations

import importlib
from functools import cache

from torch import nn

from .accelerated import Accelerated

# The packages that models come from, and the file here that knows their classes.
LIBRARIES = {"nflows": "nflows"}


@cache
def _classes(library: str) -> dict[type[nn.Module], type[Accelerated]]:
    adapter = importlib.import_module(f"{__package__}.{LIBRARIES[library]}")
    return {fast.covers: fast for fast in adapter.ACCELERATED}


def library_of(cls: type) -> str | None:
    """The supported library that a class comes from; None where it comes from none."""
    package = cls.__module__.partition(".")[0]
    return package if package in LIBRARIES else None


def fast_class(module: nn.Module) -> type[Accelerated] | None:
    """The class that stands for the module's own; None where there is none. Imports nothing of a library that is not in use."""
    library = library_of(type(module))
    return None if library is None else _classes(library).get(type(module))


def covered_base(module: nn.Module) -> type[nn.Module] | None:
    """The covered class that the module's own is derived from; None where there is none."""
    for base in type(module).__mro__[1:]:
        library = library_of(base)
        if library is not None and base in _classes(library):
            return base
    return None
