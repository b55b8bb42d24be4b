"""The kernels as a table for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby

from .budget import Kernel, resident_warps

_TITLES = ("kernel", "in", "registers", "warps", "spills", "stack", "shared", "loads", "stores", "matrix")
_CAPTION = "warps: what the registers leave room for; loads, stores: instructions x bytes"


def show(kernels: Sequence[Kernel]) -> None:
    """Prints a table for each target; aligned text where rich is not installed."""
    for target, group in groupby(sorted(kernels, key=lambda k: k.target), key=lambda k: k.target):
        rows = [_cells(kernel) for kernel in group]
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            _show_plain(target, rows)
            continue
        made = Table(title=target, caption=_CAPTION, title_justify="left", caption_justify="left")
        for i, title in enumerate(_TITLES):
            made.add_column(title, no_wrap=i == 0, justify="right" if 2 <= i <= 6 else "left")
        for row in rows:
            made.add_row(*row, style="bold red" if row[4] != "0" else "")
        # A pipe is given the whole width of the table.
        (Console() if sys.stdout.isatty() else Console(width=160)).print(made)


def _show_plain(target: str, rows: Sequence[Sequence[str]]) -> None:
    lines = [_TITLES, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_TITLES))]
    print(target)
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(_CAPTION)


def _cells(kernel: Kernel) -> tuple[str, ...]:
    code = kernel.code
    numbers = (code.registers, resident_warps(kernel.target, code.registers), code.spills, code.stack, code.shared)
    matrix = " ".join(f"{n} {name}" for name, n in code.matrix.items())
    return kernel.name, kernel.dtype, *map(str, numbers), _accesses(code.loads), _accesses(code.stores), matrix


def _accesses(counts: dict[int, int]) -> str:
    return " ".join(f"{n}x{width}" for width, n in sorted(counts.items(), reverse=True))
