"""What there is to compile, with what, and the compiling of it on all processors."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from fastgen import backends

from . import nvcc
from .budget import DTYPES, SHARED_MEMORY, Kernel
from .machine_code import cuobjdump


@dataclass(frozen=True)
class Job:
    """A call of `calls.CALLS`, or a source of nvcc's, in one dtype (all of a source at once) for one target."""

    compiler: str
    name: str
    target: str
    dtype: str | None

    def makes(self, kernel: Kernel) -> bool:
        return self.name == kernel.call and self.target == kernel.target and self.dtype in (None, kernel.dtype)


def toolchain() -> tuple[dict[str, str], list[str]]:
    """The compilers that are here with their versions, and a line for each that is not or cannot be used."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    if importlib.util.find_spec("triton") is None:
        missing.append("Triton: expected for its kernels, found none")
    elif backends.interpreting():
        missing.append("TRITON_INTERPRET: expected unset, found set, and interpreted kernels are not compiled")
    else:
        versions["triton"] = importlib.metadata.version("triton")
    if not nvcc.sources():
        missing.append("csrc/cuda: expected in a checkout, found none here, so CUDA C++ is left out")
    elif (release := nvcc.version()) is None:
        missing.append("nvcc: expected for CUDA C++, found none on the path")
    else:
        versions["nvcc"] = release
    if cuobjdump() is None:
        missing.append("cuobjdump: expected with Triton or on the path, to read machine code, found in neither")
        versions.clear()
    return versions, missing


def all_jobs(compilers: Sequence[str] | dict[str, str]) -> list[Job]:
    """The longest first, which evens the load."""
    jobs = []
    if "nvcc" in compilers:
        jobs += [
            Job("nvcc", source.stem, target, None)
            for source in nvcc.sources()
            for target in SHARED_MEMORY
            if target.startswith("sm_")
        ]
    if "triton" in compilers:
        from .calls import CALLS

        jobs += [Job("triton", c.name, target, d) for target in SHARED_MEMORY for d in DTYPES for c in CALLS if d in c.dtypes]
    return jobs


def compile_all(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, list[Kernel] | str]]:
    """Each job with its kernels, or what the compiler said instead."""
    # Spawned, as a fork of a process with torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with fresh_cache(), ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from zip(jobs, pool.map(_attempt, jobs), strict=True)


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Triton's cache in a new folder, so that nothing comes from an earlier run; products and sums fused in every version."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"TRITON_CACHE_DIR": folder, "TRITON_DEFAULT_FP_FUSION": "1"}
        with patch.dict(os.environ, settings):
            yield


def _attempt(job: Job) -> list[Kernel] | str:
    try:
        return compiled(job)
    except Exception as error:
        # Compilers have many words for refusing.
        return f"{job.name}, {job.dtype}, {job.target}: expected to compile, found {type(error).__name__}: {error}"


def compiled(job: Job) -> list[Kernel]:
    """The kernels of a job. Within `fresh_cache` they are compiled now; outside, Triton may have them from earlier."""
    if job.dtype is None:
        (source,) = (source for source in nvcc.sources() if source.stem == job.name)
        return [
            Kernel(f"{job.name}: {name}", job.target, nvcc.dtype_of(name), code)
            for name, code in nvcc.compile(source, job.target).items()
        ]
    from . import launches
    from .calls import CALLS

    (call,) = (call for call in CALLS if call.name == job.name)
    target = launches.TARGETS[job.target]
    found = call.kernels(job.dtype, target.device)
    return [Kernel(name, job.target, job.dtype, launch.compile(target)) for name, launch in found.items()]
