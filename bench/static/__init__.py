"""What the compiled kernels take of a GPU and how they move data, with no GPU at hand: `python -m fastgen.bench.static`."""

from .command import main

__all__ = ["main"]
