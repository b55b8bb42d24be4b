from __future__ import annotations

import pytest

from fastgen import backends


@pytest.fixture
def device() -> str:
    """Where Triton kernels run: in Triton's interpreter on the CPU, else on a CUDA device."""
    return "cpu" if backends.interpreting() else "cuda"
