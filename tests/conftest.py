"""What every test runs under: uninitialised memory holds NaN, so that an element nobody wrote shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


def _poisoned(allocate: Callable[..., Tensor], traceable: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def allocate_poisoned(*args, **kwargs) -> Tensor:  # type: ignore[no-untyped-def]
        # The compiler cannot trace the original through a patch; a registered kernel is not traced, so it is poisoned.
        if torch.compiler.is_dynamo_compiling():
            return traceable(*args, **kwargs)
        t = allocate(*args, **kwargs)
        if type(t) is Tensor and t.is_floating_point():
            with torch.no_grad():
                t.fill_(torch.nan)
        return t

    return allocate_poisoned


@pytest.fixture(autouse=True, scope="session")
def poison_uninitialised_memory() -> Iterator[None]:
    """For the whole session: a patch that came and went would make compiled code recompile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", _poisoned(torch.empty, torch.zeros))
        patch.setattr(torch, "empty_like", _poisoned(torch.empty_like, torch.zeros_like))
        patch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty, torch.Tensor.new_zeros))
        yield
