"""The CUDA C++ kernels, compiled with no GPU at hand: what they take of a multiprocessor."""

from __future__ import annotations

import pytest

from fastgen.bench.static import budget
from fastgen.bench.static.jobs import all_jobs, compiled, toolchain

VERSIONS, _ = toolchain()
BUDGET = budget.read(budget.FILE)["nvcc"]
# Tiles of 8, 16 and 32 rows and two places for their state, 5 in all, with weights of float32, tf32 and bfloat16; 2 of 8 rows
# in float64; the inverse forward and backward.
KERNELS = {"autoregressive_inverse": 34, "autoregressive_sample": 17, "device": 0}


@pytest.mark.slow
@pytest.mark.skipif("nvcc" not in VERSIONS, reason="needs nvcc and cuobjdump")
@pytest.mark.parametrize("job", [job for job in all_jobs(["nvcc"]) if job.target == "sm_90"], ids=lambda job: job.name)
def test_kernels_are_within_their_budgets(job) -> None:  # type: ignore[no-untyped-def]
    found = compiled(job)
    assert len(found) == KERNELS[job.name]
    assert not any(kernel.code.spills or kernel.code.stack for kernel in found)
    assert all(("HMMA" in kernel.code.matrix) == (kernel.dtype in ("tf32", "bfloat16")) for kernel in found)
    if VERSIONS["nvcc"] != BUDGET.version:
        pytest.skip(f"budgets are of nvcc {BUDGET.version}, not {VERSIONS['nvcc']}")
    assert not budget.compare(found, filter(job.makes, BUDGET.kernels))
