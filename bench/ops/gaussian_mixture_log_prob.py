"""gaussian_mixture_log_prob against its definition in PyTorch, eager and compiled.

A distance takes three operations forward and eight more backward; they are no matrix product, so only bytes count as work: the
points and the components, read once, and what is returned. Memory: what a call holds beyond that.

A kernel density estimate is the same call with a component at each of 10^5 points. It is to take less than 5 s on two cores and
200 MB; plain PyTorch would need 40 GB for a rival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from fastgen import ops, reference

from ..case import OURS, Case, MemoryCase, Setting, Work, both_modes, leaves, relative_error, with_gradients, without_gradients

OPERATION = "gaussian_mixture_log_prob"
LARGE = (10_000, 256, 64)
TARGETS = {"forward": {"compiled": 1.0}, "forward+backward": {"compiled": 2.0}}
POINTS = 100_000


def cases(setting: Setting) -> Iterator[Case | MemoryCase]:
    for size in ((256, 16, 8),) if setting.quick else ((256, 16, 8), LARGE):
        rows, components, features = size
        inputs = mixture(*size, device=setting.device)
        candidates = {
            OURS: ops.gaussian_mixture_log_prob,
            "PyTorch": reference.gaussian_mixture_log_prob,
            "compiled": torch.compile(reference.gaussian_mixture_log_prob),
        }
        read = rows * features + 2 * components * features + components
        work = Work(0, 4 * (read + rows)), Work(0, 4 * (2 * read + 2 * rows))
        shape = f"{rows} x {components} x {features}"
        truth = reference.gaussian_mixture_log_prob
        yield from both_modes(OPERATION, shape, candidates, truth, inputs, work, TARGETS if size == LARGE else None)
    if setting.device == "cpu" and not setting.quick:
        rows, components, features = LARGE
        returned = 4 * (rows + rows * features + 2 * components * features + components)
        allowed = {"1% of rows x components x features": 4 * rows * components * features // 100}
        made = {OURS: partial(_memory_call, LARGE)}
        yield MemoryCase(OPERATION, "forward+backward", f"{rows} x {components} x {features}", made, returned, allowed)
        yield from _density_estimate()


def mixture(rows: int, components: int, features: int, *, device: str = "cpu") -> list[Tensor]:
    """Points, weight logits, means and log-scales, which want gradients."""
    shapes = ((rows, features), (components,), (components, features), (components, features))
    x, logits, means, log_scales = (torch.randn(shape, device=device) for shape in shapes)
    return leaves(x, logits, means, 0.3 * log_scales)


def _memory_call(size: tuple[int, int, int]) -> Callable[[], object]:
    def call(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return with_gradients(ops.gaussian_mixture_log_prob, inputs, [torch.ones(len(inputs[0]))])

    call(mixture(64, 8, 8))
    return partial(call, mixture(*size))


def _density_estimate() -> Iterator[Case | MemoryCase]:
    shape = f"{POINTS} x {POINTS} x 2"
    inputs = estimate(POINTS)
    few = inputs[0][:50]

    def error() -> float:
        with torch.no_grad():
            truth = reference.gaussian_mixture_log_prob(*(t.double() for t in (few, *inputs[1:])))
            return relative_error([ops.gaussian_mixture_log_prob(few, *inputs[1:])], [truth])

    call = without_gradients(ops.gaussian_mixture_log_prob, inputs)
    yield Case(OPERATION, "forward", shape, {OURS: call}, error, Work(0, 4 * POINTS * 6))
    made = {OURS: partial(_estimate_call, POINTS)}
    yield MemoryCase(OPERATION, "forward", shape, made, 4 * POINTS, {"200 MB": 200_000_000 - 4 * POINTS})


def estimate(points: int) -> list[Tensor]:
    """As many points again, and the components of a kernel density estimate: all of one weight and one scale."""
    x, means = torch.randn(2, points, 2)
    return [x, torch.zeros(points), means, torch.full((points, 1), -2.3)]


def _estimate_call(points: int) -> Callable[[], object]:
    without_gradients(ops.gaussian_mixture_log_prob, estimate(64))()
    return without_gradients(ops.gaussian_mixture_log_prob, estimate(points))
