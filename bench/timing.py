"""The paired timer: every round times each candidate once, so that the machine's drift cancels in their ratios."""

from __future__ import annotations

import ctypes
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

# Below this many seconds a kernel on a GPU is shorter than what starts it: graphs are timed in place of calls.
SHORT = 1e-4

# A sample lasts about this long: a loop, as in use, whose data is as warm as a loop keeps it.
_SAMPLE_SECONDS = 0.1
_WARM_UP_SECONDS = 0.1
_ROUNDS = (7, 200)


class Summary(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


class Rotation:
    """A call that takes the next of several in turn: the same function of inputs of its own each."""

    def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
        self.calls = calls
        self._next = itertools.cycle(calls)

    def __call__(self) -> object:
        return next(self._next)()


def summarise(values: Sequence[float]) -> Summary:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high)


def pair_ratios(times: Sequence[float], base: Sequence[float]) -> Summary:
    """How many times longer than `base`, round by round."""
    return summarise([t / b for t, b in zip(times, base, strict=True)])


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, device: str = "cpu", seconds: float = 2.0
) -> dict[str, list[float]]:
    """Seconds per call of every candidate, one entry per round.

    Every candidate is warmed up; then rounds run for about `seconds`, each timing all candidates in turn, every other
    round in the opposite order. On CUDA the times are those between two events on the current stream.
    """
    keep_freed_memory()
    sample = _sample_cuda if device == "cuda" else _sample_cpu
    calls = {name: _calls_per_sample(call, sample) for name, call in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    with _no_garbage_collection():
        start = time.perf_counter()
        while (done := len(times[order[0]])) < _ROUNDS[0] or (done < _ROUNDS[1] and time.perf_counter() - start < seconds):
            for name in order:
                times[name].append(sample(candidates[name], calls[name]))
            order.reverse()
    return times


def replay(candidates: Mapping[str, Callable[[], object]], *, seconds: float = 2.0) -> dict[str, list[float]] | None:
    """As `interleave` on CUDA, each candidate's kernels replayed as a graph, without what starts them from Python.

    None where one of them cannot be captured: all or none are.
    """
    graphs, sizes = {}, {}
    for name, call in candidates.items():
        calls = call.calls if isinstance(call, Rotation) else [call]
        try:
            graphs[name], sizes[name] = _capture(calls).replay, len(calls)
        except RuntimeError:
            return None
    times = interleave(graphs, device="cuda", seconds=seconds)
    return {name: [t / sizes[name] for t in found] for name, found in times.items()}


def _capture(calls: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    """One graph of all the calls, warmed up as captures ask for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, for all candidates alike: else page faults, not kernels, rule a step."""
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, (1 << 31) - 1)


def _calls_per_sample(call: Callable[[], object], sample: Callable[[Callable[[], object], int], float]) -> int:
    start = time.perf_counter()
    fastest = sample(call, 1)
    while time.perf_counter() - start < _WARM_UP_SECONDS:
        fastest = min(fastest, sample(call, 1))
    return max(1, round(_SAMPLE_SECONDS / fastest))


def _sample_cpu(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _sample_cuda(call: Callable[[], object], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


@contextmanager
def _no_garbage_collection():  # type: ignore[no-untyped-def]
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
