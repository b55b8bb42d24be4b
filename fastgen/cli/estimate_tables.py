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


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(columns[0])
    table.add_column(columns[1], justify="right")
    table.add_column(columns[2])
    return table


def memory_table(found: Estimate, gpus: int) -> Table:
    table = _table("memory of each GPU", "what", "MiB", "")
    for what, size, how in _parts(found, gpus):
        table.add_row(what, f"{size / _MEBI:,.2f}", how)
    table.add_section()
    table.add_row("at the worst moment", f"{found.peak / _MEBI:,.2f}", "all of it, less what is freed before")
    return table


def _parts(found: Estimate, gpus: int) -> Iterator[tuple[str, float, str]]:
    yield "parameters", found.parameters, ""
    yield "gradients", found.gradients, ""
    if gpus > 1:
        yield "buckets", found.buckets, "a second copy of the gradients, to be sent"
    yield "optimiser", found.optimizer, "Adam: two moments"
    yield "rows", found.rows, "of one batch"
    yield "saved", found.saved, "from the forward for the backward pass"
    yield "workspace", found.workspace, "of the operation that takes most, beyond the others"


def time_table(found: Estimate, count: StepCount, gpus: int) -> Table:
    table = _table("time of a step", "what", "ms", "")
    works = (("forward", found.forward, count.forward), ("backward", found.backward, count.backward))
    for what, seconds, work in (*works, ("optimiser", found.update, [count.optimizer])):
        flops = sum(w.flops for w in work) / _GIGA
        table.add_row(what, f"{1e3 * seconds:,.3g}", f"{len(work)} operations, {flops:,.4g} GFLOP" if flops else "")
    if gpus > 1:
        table.add_row("all-reduce", f"{1e3 * found.all_reduce:,.3g}", "of the gradients")
    table.add_section()
    hidden, exposed = found.step
    told = "to " + f"{1e3 * exposed:,.3g}, the all-reduce hidden behind the backward pass or not at all" if gpus > 1 else ""
    table.add_row("step", f"{1e3 * hidden:,.3g}", told)
    return table


def assumptions(gpus: int, link: float) -> Iterator[str]:
    yield "work and saved tensors: counted by walking the step, each operation as it says itself; all numbers of one dtype"
    yield "an operation reads its arguments and writes its results once, and takes the longer of its arithmetic and its bytes"
    yield "not counted: the allocator's slack, scratch inside of kernels, CUDA's own few hundred MiB, waiting for data"
    if gpus > 1:
        yield f"all-reduce: a ring of {gpus} links of {link:g} GB/s each way, 2 ({gpus} - 1) / {gpus} times the gradients"
