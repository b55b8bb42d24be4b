"""Memory that a call holds while it runs: the peak of a whole process, the scratch of compiled code included."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3


def peak_bytes(make_call: Callable[[], Callable[[], object]]) -> int:
    """How far the resident memory of a fresh process rises during one call, what the call returns included.

    `make_call`, which pickle must be able to name, builds the call's inputs in that process and runs something small of
    the same kind, so that pools of threads are there already. Linux with glibc only: raises OSError elsewhere.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, make_call).result()


def _measure(make_call: Callable[[], Callable[[], object]]) -> int:
    libc = ctypes.CDLL("libc.so.6")
    # Blocks from 64 KiB go back to the system when freed: none lies in wait, resident, for the call to reuse.
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    call = make_call()
    libc.malloc_trim(0)
    _CLEAR.write_text("5")
    before = _resident("VmRSS")
    result = call()
    peak = _resident("VmHWM")
    del result
    return peak - before


def _resident(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
