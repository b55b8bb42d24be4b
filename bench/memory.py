"""Memory that a call holds while it runs: its peak, the scratch of compiled code included."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import torch

from .timing import keep_freed_memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3


def peak_bytes(make_call: Callable[[], Callable[[], object]]) -> int:
    """How far the resident memory of a fresh process rises during one call, what the call returns included.

    `make_call`, which pickle must be able to name, builds the call's inputs in that process and runs something small of
    the same kind, so that pools of threads are there already. Linux with glibc only: raises OSError elsewhere.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_made_and_measured, make_call).result()


def peak_bytes_here(call: Callable[[], object], device: str) -> int | None:
    """How far memory rises during one call that has run before, what it returns included; None where that is not known.

    On CUDA by torch's allocator. On a CPU by the resident memory of this process, to some hundred KiB, in a thread of its
    own: the scratch that kernels keep for each thread counts.
    """
    if device == "cuda":
        return _peak_of_the_allocator(call)
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(_peak_of_the_process, call).result()
    except (OSError, StopIteration, AttributeError):  # not Linux, or another C library
        return None
    finally:
        keep_freed_memory()


def _peak_of_the_allocator(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del result
    return peak - before


def _made_and_measured(make_call: Callable[[], Callable[[], object]]) -> int:
    _return_freed_memory()
    return _peak_of_the_process(make_call())


def _peak_of_the_process(call: Callable[[], object]) -> int:
    _return_freed_memory()
    _CLEAR.write_text("5")
    before = _resident("VmRSS")
    result = call()
    peak = _resident("VmHWM")
    del result
    return max(0, peak - before)


def _return_freed_memory() -> None:
    """Blocks from 64 KiB go back to the system when freed: none lies in wait, resident, for a call to reuse."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    libc.malloc_trim(0)


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
