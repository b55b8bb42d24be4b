"""From a case to its rows: checked, timed, and set against the roof."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from fastgen import backends

from . import ceilings
from .case import OURS, Case, MemoryCase
from .memory import peak_bytes
from .timing import interleave, pair_ratios, summarise

_SECONDS = {False: 4.0, True: 1.0}
_PAGE = 4096


class WrongResult(AssertionError):
    """What was to be timed does not compute what it should."""


@dataclass(frozen=True)
class Row:
    """One measured number: one candidate of one case.

    quantity: "time", in ms, or "extra memory", in MiB; `low` and `high` are the quartiles around the median `value`.
    ratio: the median over the rounds of this candidate's number through fastgen's; above 1 fastgen is better.
    roof: the least number of ms the work can take here, limited by `bound`: "arithmetic" or "bandwidth".
    share: roof / value.
    error: the relative error of fastgen's results, checked before.
    """

    operation: str
    mode: str
    shape: str
    dtype: str
    device: str
    instructions: str
    candidate: str
    quantity: str
    value: float
    low: float
    high: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    target: float | None = None
    roof: float | None = None
    bound: str | None = None
    share: float | None = None
    error: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the ratio reaches its target; None without one."""
        return None if self.target is None or self.ratio is None else self.ratio >= self.target


def measure(case: Case | MemoryCase, *, quick: bool = False) -> Iterator[Row]:
    """Raises WrongResult before anything is timed when fastgen's results are not what they should be."""
    return _memory(case) if isinstance(case, MemoryCase) else _time(case, quick)


def _memory(case: MemoryCase) -> Iterator[Row]:
    extra = {name: max(0, peak_bytes(make_call) - case.returned) for name, make_call in case.candidates.items()}
    # Resident memory is counted in pages, so none at all is known to less than one page.
    ours = max(extra[OURS], _PAGE)
    for name, found in {**extra, **case.allowed}.items():
        ratio = found / ours if name != OURS else None
        yield Row(
            case.operation,
            case.mode,
            case.shape,
            _name(case.dtype),
            "cpu",
            _instructions("cpu"),
            name,
            "extra memory",
            value=found / 2**20,
            low=found / 2**20,
            high=found / 2**20,
            ratio=ratio,
            ratio_low=ratio,
            ratio_high=ratio,
            target=1.0 if name in case.allowed else None,
        )


def _time(case: Case, quick: bool) -> Iterator[Row]:
    with cpu_variant(case.variant):
        error = case.error()
        if not error <= case.error_limit:
            found = f"relative error {error:.1e}, at most {case.error_limit:.1e} expected"
            raise WrongResult(f"{case.operation}, {case.mode}, {case.shape}: {found}")
        times = interleave(case.candidates, device=case.device, seconds=_SECONDS[quick])
        instructions = _instructions(case.device)
    arithmetic = 1e3 * case.work.flops / ceilings.gemm_rate(case.device, case.dtype)
    transfer = 1e3 * case.work.bytes / ceilings.copy_bandwidth(case.device, case.work.bytes)
    roof = max(arithmetic, transfer)
    for name in case.candidates:
        milliseconds = summarise([1e3 * t for t in times[name]])
        ratio = pair_ratios(times[name], times[OURS]) if name != OURS else None
        yield Row(
            case.operation,
            case.mode,
            case.shape,
            _name(case.dtype),
            case.device,
            instructions,
            name,
            "time",
            value=milliseconds.median,
            low=milliseconds.low,
            high=milliseconds.high,
            ratio=ratio.median if ratio else None,
            ratio_low=ratio.low if ratio else None,
            ratio_high=ratio.high if ratio else None,
            target=case.targets.get(name),
            roof=roof,
            bound="arithmetic" if arithmetic >= transfer else "bandwidth",
            share=roof / milliseconds.median,
            error=error if name == OURS else None,
        )


def _instructions(device: str) -> str:
    """What fastgen's kernels run with, and torch's where that differs."""
    if device != "cpu":
        return device
    ours, theirs = backends.cpu_variant() or "reference", torch.backends.cpu.get_cpu_capability().lower()
    return ours if ours in (theirs, "reference") else f"{ours}, torch {theirs}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def cpu_variant(name: str | None) -> Iterator[None]:
    """Forces the instruction set of the C++ kernels; None leaves the choice to them."""
    if name is None:
        yield
        return
    compiled = backends.compiled()
    before = compiled.cpu_variant()
    compiled.set_cpu_variant(name)
    try:
        yield
    finally:
        compiled.set_cpu_variant(before)
