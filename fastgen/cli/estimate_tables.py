"""How an estimate is shown, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from ..bench.estimate import Estimate  # type: ignore[import-not-found]
    from ..bench.step_count import StepCount  # type: ignore[import-not-found]

_GIGA, _MEBI = 1e9, 2**20


def _number(value: float) -> str:
    """Three digits; all of them from 1000 on."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(columns[0])
    table.add_column(columns[1], justify="right")
    table.add_column(columns[2])
    return table


def memory_table(found: Estimate, gpus: int) -> Table:
    table = _table("memory of each GPU", "what", "MiB", "")
    for what, size, how in _parts(found, gpus):
        table.add_row(what, _number(size / _MEBI), how)
    table.add_section()
    table.add_row("at the worst moment", _number(found.peak / _MEBI), "all of it, less what is freed before")
    return table


def _parts(found: Estimate, gpus: int) -> Iterator[tuple[str, float, str]]:
    yield "parameters", found.parameters, ""
    yield "gradients", found.gradients, ""
    if gpus > 1:
        yield "buckets", found.buckets, "a second copy of the gradients, to be sent"
    yield "moments", found.optimizer, "two, Adam's"
    yield "rows", found.rows, "of one batch"
    yield "saved", found.saved, "from the forward for the backward pass"
    yield "workspace", found.workspace, "of the worst moment, beyond the others"


def time_table(found: Estimate, count: StepCount, gpus: int) -> Table:
    table = _table("time of a step", "what", "ms", "")
    works = (("forward", found.forward, count.forward), ("backward", found.backward, count.backward))
    for what, seconds, work in (*works, ("optimiser", found.update, [count.optimizer])):
        flops = sum(w.flops for w in work) / _GIGA
        table.add_row(what, _number(1e3 * seconds), f"{len(work)} operations, {_number(flops)} GFLOP" if flops else "")
    if gpus > 1:
        table.add_row("all-reduce", _number(1e3 * found.all_reduce), "of the gradients")
    table.add_section()
    hidden, exposed = found.step
    told = f"to {_number(1e3 * exposed)}: the all-reduce hidden by the backward pass, or not" if gpus > 1 else ""
    table.add_row("step", _number(1e3 * hidden), told)
    return table


def assumptions(gpus: int, link: float) -> Iterator[str]:
    yield "work and saved tensors: counted by walking the step, each operation as it says itself; all numbers of one dtype"
    yield "an operation reads its arguments and writes its results once, and takes the longer of its arithmetic and its bytes"
    yield "not counted: the allocator's slack, scratch inside of kernels, CUDA's own few hundred MiB, waiting for data"
    if gpus > 1:
        yield f"all-reduce: a ring of {gpus} links of {link:g} GB/s each way, 2 ({gpus} - 1) / {gpus} times the gradients"
