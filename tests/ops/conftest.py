"""What the tests of the operations choose: the backend, and the instruction set of the C++ kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastgen import backends


@pytest.fixture
def cpu_backend() -> Iterator[None]:
    """Forces the C++ kernels, so that a test cannot pass on the reference alone."""
    with backends.use("cpu"):
        yield


@pytest.fixture(params=["portable", "avx2", "avx512"])
def cpu_variant(request: pytest.FixtureRequest, cpu_backend: None) -> Iterator[str]:
    """Each instruction set this machine can run."""
    try:
        backends.compiled().set_cpu_variant(request.param)
    except ValueError:
        pytest.skip(f"this machine cannot run {request.param}")
    yield request.param
    backends.compiled().set_cpu_variant("auto")
