"""What is measured: candidates that do the same work, a check that they do, and the least work it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

# The candidate that every other one is divided by.
OURS = "fastgen"


class Setting(NamedTuple):
    """Where and how thoroughly to measure. `quick` takes the fewest sizes and the shortest time."""

    device: str = "cpu"
    quick: bool = False


class Work(NamedTuple):
    """The least a call has to do: floating-point operations in matrix products, and bytes read and written."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Case:
    """One comparison.

    candidates: what is timed; `OURS` is among them.
    error: the relative error of fastgen's outputs (and gradients) against float64, and what it may be at most.
    targets: by candidate, how many times faster than it fastgen is to be.
    variant: the instruction set forced on the C++ kernels, or None for the best.
    """

    operation: str
    mode: str
    shape: str
    candidates: Mapping[str, Callable[[], object]]
    error: Callable[[], float]
    work: Work
    targets: Mapping[str, float] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    variant: str | None = None

    @property
    def error_limit(self) -> float:
        """Room for rounding: of sums over thousands of terms, in half types (which accumulate in float32) of results."""
        return (4 if self.dtype.itemsize == 2 else 64) * torch.finfo(self.dtype).eps


@dataclass(frozen=True)
class MemoryCase:
    """A comparison of what calls hold beyond what they return.

    candidates: for each, what `memory.peak_bytes` takes; `OURS` is among them.
    returned: bytes of the outputs and gradients.
    allowed: by name, bytes that fastgen is to stay below.
    """

    operation: str
    mode: str
    shape: str
    candidates: Mapping[str, Callable[[], Callable[[], object]]]
    returned: int
    allowed: Mapping[str, int]
    dtype: torch.dtype = torch.float32


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of |found - expected| / |expected|, Frobenius norms, over the pairs."""
    pairs = ((f.detach().double(), e.detach().double()) for f, e in zip(found, expected, strict=True))
    return max(float((f - e).norm() / e.norm().clamp_min(torch.finfo(e.dtype).tiny)) for f, e in pairs)


def with_gradients(
    run: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The outputs of `run(*inputs)` and the gradients of all inputs, `grads` coming in."""
    outputs = run(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return (*outputs, *torch.autograd.grad(outputs, inputs, grads))


def without_gradients(run: Callable[..., object], inputs: Sequence[Tensor]) -> Callable[[], object]:
    """The call `run(*inputs)` that keeps nothing for a backward pass."""

    def call() -> object:
        with torch.no_grad():
            return run(*inputs)

    return call


def leaves(*tensors: Tensor) -> list[Tensor]:
    """The tensors as leaves that want gradients."""
    return [t.detach().requires_grad_() for t in tensors]


def both_modes(
    operation: str,
    shape: str,
    candidates: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]],
    truth: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    work: tuple[Work, Work],
    targets: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[Case]:
    """The cases "forward" (nothing kept) and "forward+backward" (gradients of every input) of functions of `inputs`.

    truth: the function that fastgen's results are checked against, in float64.
    work: of the forward and of the backward pass.
    targets: by mode.
    """
    x = inputs[0]
    outputs = truth(*inputs)
    grads = [torch.randn_like(y) for y in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def error() -> float:
        expected = with_gradients(truth, leaves(*(t.double() for t in inputs)), [g.double() for g in grads])
        return relative_error(with_gradients(candidates[OURS], inputs, grads), expected)

    calls: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {name: without_gradients(run, inputs) for name, run in candidates.items()},
        "forward+backward": {name: partial(with_gradients, run, inputs, grads) for name, run in candidates.items()},
    }
    works = {"forward": work[0], "forward+backward": work[0] + work[1]}
    for mode in calls:
        wanted = targets.get(mode, {}) if targets else {}
        yield Case(operation, mode, shape, calls[mode], error, works[mode], wanted, x.dtype, x.device.type)
