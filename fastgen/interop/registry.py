"""Which accelerated class stands for a module, from the file of its library."""

from __future__ import annotations

import importlib
from functools import cache

from torch import nn

from .accelerated import Accelerated
from .plain import plain_class

# The packages that models come from, and the file here that knows their classes: that of the longest name counts.
ADAPTERS = {
    "nflows": "nflows",
    "nflows.nn.nde": "nflows_nde",
    "normflows": "normflows",
    "zuko": "zuko",
    "pyro": "pyro",
    "FrEIA": "freia",
}
LIBRARIES = sorted({package.partition(".")[0] for package in ADAPTERS})


@cache
def _classes(package: str) -> dict[type[nn.Module], type[Accelerated]]:
    adapter = importlib.import_module(f"{__package__}.{ADAPTERS[package]}")
    return {fast.covers: fast for fast in adapter.ACCELERATED}


def package_of(cls: type) -> str | None:
    """The supported package that a class comes from; None where it comes from none."""
    found = [package for package in ADAPTERS if f"{cls.__module__}.".startswith(f"{package}.")]
    return max(found, key=len, default=None)


def fast_class(module: nn.Module) -> type[Accelerated] | None:
    """The class that stands for the module's own; None where there is none. Imports no library that is not in use."""
    package = package_of(type(module))
    return plain_class(module) if package is None else _classes(package).get(type(module))


def covered_base(module: nn.Module) -> type[nn.Module] | None:
    """The covered class that the module's own is derived from; None where there is none."""
    for base in type(module).__mro__[1:]:
        package = package_of(base)
        if package is not None and base in _classes(package):
            return base
    return None
