from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def threads_of_the_session() -> Iterator[None]:
    """A command's --threads must not stay in force for the tests after it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
