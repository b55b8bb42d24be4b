"""Other libraries' flows, one file for each library, and fastgen's with their weights: what is timed computes the same."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

# By the name that rows have: the module that the library is imported as, and the file here.
LIBRARIES = {
    "nflows": ("nflows", "nflows"),
    "normflows": ("normflows", "normflows"),
    "zuko": ("zuko", "zuko"),
    "Pyro": ("pyro", "pyro"),
    "FrEIA": ("FrEIA", "freia"),
}


def installed(kind: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The libraries that are installed and have such a flow ("maf", "maf_as_shipped", "iaf", "realnvp", "sbi"), its builder."""
    for name, (library, file) in LIBRARIES.items():
        if importlib.util.find_spec(library):
            builder = getattr(importlib.import_module(f"fastgen.bench.peers.{file}"), kind, None)
            if builder is not None:
                yield name, builder
