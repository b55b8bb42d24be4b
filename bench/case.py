"""What is measured: candidates that do the same work, a check that each of them does, and the least work it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from .precision import error_limit
from .timing import Rotation

# The candidate that every other one is divided by.
OURS = "fastgen"

# A function of a case's inputs, and what it gives.
Function = Callable[..., Tensor | tuple[Tensor, ...]]
Results = Sequence[Tensor]

# On a GPU the inputs of one call after the other, all together, are this many times as large as its cache.
_BEYOND_CACHE = 2
_MOST_INPUTS = 64


class Setting(NamedTuple):
    """Where and how thoroughly to measure.

    quick: the fewest sizes, the shortest time, nothing that has to be compiled.
    full: what takes long as well: every mode of torch.compile on CUDA, gigabytes on disk.
    dtype: one of `precision.DTYPES`.
    """

    device: str = "cpu"
    quick: bool = False
    full: bool = False
    dtype: str = "float32"

    @property
    def counts_memory(self) -> bool:
        """Whether cases of memory alone belong to the run: each has a process of its own, of float32 on a CPU."""
        return self.device == "cpu" and self.dtype == "float32" and not self.quick


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
    errors: of each candidate the relative error of its outputs (and gradients) against float64, which is to be at most
        `error_limit`. One that fails or is further off gets no time.
    targets: by candidate, how many times faster than it fastgen is to be.
    variant: the instruction set forced on the C++ kernels, or None for the best.
    """

    operation: str
    mode: str
    shape: str
    candidates: Mapping[str, Callable[[], object]]
    errors: Mapping[str, Callable[[], float]]
    work: Work
    targets: Mapping[str, float] = field(default_factory=dict)
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    device: str = "cpu"
    variant: str | None = None

    def __post_init__(self) -> None:
        if set(self.errors) != set(self.candidates) or OURS not in self.candidates:
            raise ValueError(
                f"errors: expected one for each of {', '.join(self.candidates)}, fastgen among them, "
                f"found {', '.join(self.errors)}"
            )

    @property
    def error_limit(self) -> float:
        return error_limit(self.dtype, self.device)


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


def relative_error(found: Results, expected: Results) -> float:
    """The largest of |found - expected| / |expected|, Frobenius norms, over the pairs."""
    pairs = ((f.detach().double(), e.detach().double()) for f, e in zip(found, expected, strict=True))
    return max(float((f - e).norm() / e.norm().clamp_min(torch.finfo(e.dtype).tiny)) for f, e in pairs)


def with_gradients(run: Function, inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs of `run(*inputs)` and the gradients of all inputs, `grads` coming in."""
    outputs = _tuple(run(*inputs))
    return (*outputs, *torch.autograd.grad(outputs, inputs, _like(grads, outputs)))


def _like(grads: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """The incoming gradients in the dtypes of the outputs: half inputs give float32 sums here, half ones there."""
    return [g if g.dtype == y.dtype else g.to(y.dtype) for g, y in zip(grads, outputs, strict=True)]


def without_gradients(run: Callable[..., object], inputs: Sequence[Tensor]) -> Callable[[], object]:
    """The call `run(*inputs)` that keeps nothing for a backward pass."""

    def call() -> object:
        with torch.no_grad():
            return run(*inputs)

    return call


def backward_alone(run: Function, inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> Callable[[], object]:
    """The gradients of all inputs through outputs that the first call computes and keeps."""

    @cache
    def outputs() -> tuple[Tensor, ...]:
        return _tuple(run(*inputs))

    return lambda: torch.autograd.grad(outputs(), inputs, _like(grads, outputs()), retain_graph=True)


def leaves(*tensors: Tensor) -> list[Tensor]:
    """The tensors as leaves that want gradients."""
    return [t.detach().requires_grad_() for t in tensors]


def passes(
    operation: str,
    shape: str,
    candidates: Mapping[str, Function],
    truth: Function,
    inputs: Sequence[Tensor],
    work: tuple[Work, Work],
    targets: Mapping[str, Mapping[str, float]] | None = None,
    *,
    checked: Mapping[str, Function] | None = None,
    compared: Mapping[str, Callable[[Results], Results]] | None = None,
) -> Iterator[Case]:
    """The cases "forward" (nothing kept), "backward" alone and "forward+backward" (gradients of every input).

    truth: the function that every candidate's results are checked against, in float64.
    work: of the forward and of the backward pass.
    targets: by mode.
    checked: for candidates that draw noise of their own, the same function with the noise given, checked in their place.
    compared: what of a candidate's results can be compared, for one that computes more than the truth.
    """
    x = inputs[0]
    grads = [torch.randn_like(y) for y in _tuple(truth(*inputs))]
    outputs = len(grads)

    @cache
    @torch.enable_grad()
    def expected() -> tuple[Tensor, ...]:
        doubles = leaves(*(t.double() for t in inputs))
        return tuple(t.detach() for t in with_gradients(truth, doubles, [g.double() for g in grads]))

    def error(name: str, forward: bool) -> float:
        run = (checked or {}).get(name, candidates[name])
        if forward:
            with torch.no_grad():
                return relative_error(_tuple(run(*inputs)), expected()[:outputs])
        found: Results = with_gradients(run, inputs, grads)
        return relative_error((compared or {}).get(name, _all)(found), expected())

    sets = _input_sets(inputs)
    modes: dict[str, tuple[Callable[[Function, Sequence[Tensor]], Callable[[], object]], Work]] = {
        "forward": (without_gradients, work[0]),
        "backward": (partial(backward_alone, grads=grads), work[1]),
        "forward+backward": (lambda run, own: partial(with_gradients, run, own, grads), work[0] + work[1]),
    }
    for mode, (call, least) in modes.items():
        calls = {name: Rotation([call(run, own) for own in sets]) for name, run in candidates.items()}
        errors = {name: partial(error, name, mode == "forward") for name in candidates}
        wanted = targets.get(mode, {}) if targets else {}
        yield Case(operation, mode, shape, calls, errors, least, wanted, x.dtype, x.device.type)


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _all(results: Results) -> Results:
    return results


def _input_sets(inputs: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """The inputs, on a GPU with as many copies as no cache holds at once."""
    if inputs[0].device.type != "cuda":
        return [inputs]
    cache_bytes = torch.cuda.get_device_properties(inputs[0].device).L2_cache_size
    return copies_beyond(_BEYOND_CACHE * cache_bytes, inputs)


def copies_beyond(nbytes: int, inputs: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """The inputs and copies of them, together at least `nbytes` large unless they are very small."""
    own = sum(t.numel() * t.element_size() for t in inputs)
    count = min(_MOST_INPUTS, max(1, -(-nbytes // max(own, 1))))
    return [inputs, *(leaves(*(t.detach().clone() for t in inputs)) for _ in range(count - 1))]
