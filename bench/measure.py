"""From a case to its rows: checked, timed, and set against the roof."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from fastgen import backends

from . import ceilings
from .case import OURS, Case, MemoryCase
from .memory import peak_bytes, peak_bytes_here
from .precision import name_of
from .rows import NOTHING, Row
from .timing import SHORT, interleave, pair_ratios, replay, summarise

_SECONDS = {False: 4.0, True: 1.0}
_PAGE = 4096
# How many times the roof is beyond every error of the roof's: what is above computes nothing but remembers.
_IMPOSSIBLE = 10
# Calls that take longer are not made once more for the memory they take.
_LONG = 1.0


def measure(case: Case | MemoryCase, *, quick: bool = False) -> Iterator[Row]:
    """The rows of a case. Candidates whose results are not what they should be, or that fail, get a note and no number.

    Nothing is timed where that is fastgen.
    """
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
            name_of(case.dtype, "cpu"),
            "cpu",
            instructions("cpu"),
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
    _forget_compiled()
    with cpu_variant(case.variant):
        rows = {name: _checked(case, name) for name in case.candidates}
        if rows[OURS].note:
            yield rows[OURS]
            return
        right = {name: call for name, call in case.candidates.items() if not rows[name].note}
        times = interleave(right, device=case.device, seconds=_SECONDS[quick])
        memory = {name: _peak(call, min(times[name]), case.device) for name, call in right.items()}
        graphs = replay(right, seconds=_SECONDS[quick]) if _short(case, times) else None
    roof, bound = _roof(case)
    for name, found in times.items():
        if (share := roof / (1e3 * min(found))) > _IMPOSSIBLE:
            rows[name] = replace(rows[name], note=f"{share:.0f} times the roof: what is timed is not what was checked")
    if rows[OURS].note:
        yield rows[OURS]
        return
    # A row keeps its place among the candidates, whether it has a number or not.
    for name, row in rows.items():
        if row.note:
            yield row
            continue
        row = replace(row, memory=memory[name], roof=roof, bound=bound, **case.work._asdict())
        if graphs is None:
            yield _timed(replace(row, timer="loop" if case.device == "cpu" else "events"), times, case)
        else:
            yield _timed(replace(row, timer="graph"), graphs, case)
    if graphs is not None:
        for name in (name for name in right if not rows[name].note):
            yield _timed(replace(rows[name], quantity="call", timer="events"), times, case, with_target=False)


def _checked(case: Case, name: str) -> Row:
    """A row without a number: with the error of the candidate's results, or a note of why it is not to be timed."""
    error, note = _error(case.errors[name])
    if error is not None and not error <= case.error_limit:
        note = f"results differ: relative error {error:.1e}, at most {case.error_limit:.1e} expected"
    return Row(
        case.operation,
        case.mode,
        case.shape,
        name_of(case.dtype, case.device),
        case.device,
        instructions(case.device),
        name,
        "time",
        *(NOTHING,) * 3,
        target=case.targets.get(name),
        error=error,
        note=note,
    )


def _error(check: Callable[[], float]) -> tuple[float | None, str]:
    try:
        return check(), ""
    except Exception as error:  # whatever a peer or a compiler raises is what there is to report
        compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch"))
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return None, f"{'does not compile' if compiler else 'fails'}: {reason}"


def _timed(row: Row, times: Mapping[str, list[float]], case: Case, *, with_target: bool = True) -> Row:
    name = row.candidate
    milliseconds = summarise([1e3 * t for t in times[name]])
    ratio = pair_ratios(times[name], times[OURS]) if name != OURS else None
    return replace(
        row,
        value=milliseconds.median,
        low=milliseconds.low,
        high=milliseconds.high,
        ratio=ratio.median if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        target=row.target if with_target else None,
        share=None if row.roof is None else row.roof / milliseconds.median,
    )


def _roof(case: Case) -> tuple[float, str]:
    """The least number of ms the work can take here, and what limits it."""
    arithmetic = 1e3 * case.work.flops / ceilings.gemm_rate(case.device, case.dtype)
    transfer = 1e3 * case.work.bytes / ceilings.copy_bandwidth(case.device, case.work.bytes)
    return max(arithmetic, transfer), "arithmetic" if arithmetic >= transfer else "bandwidth"


def _peak(call: Callable[[], object], seconds: float, device: str) -> float | None:
    """MiB."""
    found = peak_bytes_here(call, device) if seconds < _LONG else None
    return None if found is None else found / 2**20


def _short(case: Case, times: Mapping[str, list[float]]) -> bool:
    return case.device == "cuda" and min(min(found) for found in times.values()) < SHORT


def _forget_compiled() -> None:
    """Each case compiles for its own shapes: what was compiled for those before would make them dynamic."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def instructions(device: str) -> str:
    """What fastgen's kernels run with, and torch's where that differs."""
    if device != "cpu":
        return device
    ours, theirs = backends.cpu_variant() or "reference", torch.backends.cpu.get_cpu_capability().lower()
    return ours if ours in (theirs, "reference") else f"{ours}, torch {theirs}"


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
