from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import emulation
import pytest

from fastgen import backends


@pytest.fixture
def device() -> str:
    """Where Triton kernels run: in Triton's interpreter on the CPU, else on a CUDA device."""
    return "cpu" if backends.interpreting() else "cuda"


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The CUDA C++ kernels built for the CPU."""
    return emulation.build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def choose(emulated: ModuleType) -> Iterator[Callable[..., None]]:
    """Runs the operations of those kernels on them; what chooses their tiles."""
    with backends.use("cpu"), emulation.in_place(emulated) as chosen:
        chosen()
        yield chosen
