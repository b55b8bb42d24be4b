"""An operation on Triton kernels, against its definition in float64 and in its own dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from support import assert_draws_as_accurate
from torch import Tensor

from fastgen import backends

NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
# Tests of kernels run on a GPU, or through test_interpreter.py without one.
RUNS_KERNELS = pytest.mark.interpreter if backends.interpreting() else NEEDS_GPU


def padded(t: Tensor) -> Tensor:
    """The same values, row by row, amid NaN: what is read out of bounds shows."""
    room = t.new_full((t.shape[0] + 2, t.shape[1] + 3), torch.nan)
    room[: t.shape[0], : t.shape[1]] = t
    return room[: t.shape[0], : t.shape[1]]


def outputs_and_gradients(
    function: Callable, inputs: Sequence[Tensor], weights: Sequence[Tensor], dtype: torch.dtype | None = None
) -> list[Tensor]:
    """What function returns, then the gradients of its weighted sum for every input."""
    leaves = [t.detach().to(t.dtype if dtype is None else dtype).requires_grad_() for t in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs, leaves, [w.to(o) for w, o in zip(weights, outputs, strict=True)])
    return [*(o.detach() for o in outputs), *gradients]


def assert_matches(operation: Callable, definition: Callable, *draws: Sequence[Tensor]) -> None:
    """The error rule for every output and every gradient of `operation`, run on Triton kernels; draws: inputs of each call."""
    for of_one in zip(*(_compared(operation, definition, inputs) for inputs in draws), strict=True):
        assert_draws_as_accurate(*of_one)


def _compared(operation: Callable, definition: Callable, inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of every output and every gradient what the operation gives, the definition, and the definition in float64."""
    with torch.no_grad():
        outputs = definition(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    # Transposed, so that incoming gradients are not contiguous.
    weights = [
        torch.randn(o.shape[::-1], generator=generator).permute(*range(o.dim())[::-1]).to(device=o.device, dtype=o.dtype)
        for o in outputs
    ]
    truth = outputs_and_gradients(definition, inputs, weights, torch.float64)
    plain = outputs_and_gradients(definition, inputs, weights)
    with backends.use("triton"):
        found = outputs_and_gradients(operation, inputs, weights)
    batch = inputs[0].shape[0]
    # A parameter's gradient is held to its norm as a whole: the sums in one row of a weight's may all but cancel.
    return [
        (f, p, t) if len(f) == batch else (f.flatten(), p.flatten(), t.flatten())
        for f, p, t in zip(found, plain, truth, strict=True)
    ]
