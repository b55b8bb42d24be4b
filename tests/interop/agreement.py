"""What tests of every library ask: the same numbers, of the same dtypes and shapes, before and after `accelerate`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from support import assert_as_accurate
from torch import Tensor, nn

import fastgen

# Relative to max(1, |value|): float32 at initialisation, float64.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}

Evaluate = Callable[[Any], Sequence[Tensor]]


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float | None = None) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.device == b.device
        a, b = a.detach(), b.detach()
        error = float(((a - b).abs() / b.abs().clamp(min=1)).max()) if b.numel() else 0.0
        assert error <= (TOLERANCE[b.dtype] if tolerance is None else tolerance), error


def with_gradients(model: nn.Module, evaluate: Evaluate) -> tuple[list[Tensor], list[Tensor | None]]:
    """The results, and the gradients of a sum of all of them with weights that differ."""
    results = list(evaluate(model))
    total = sum((r * torch.arange(1, r.numel() + 1).to(r).cos().view(r.shape)).sum() for r in results)
    gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)  # type: ignore[arg-type]
    return results, list(gradients)


def assert_agrees(model: nn.Module, evaluate: Evaluate, replaced: Sequence[str], dtype: torch.dtype) -> nn.Module:
    """Accelerates a copy: the classes of these names are replaced, and results and gradients are the model's own.

    Noise is drawn from torch's generator, whose state both find alike. Gradients of parameters sum over rows: relative to the
    largest of the tensor. Returns the accelerated copy.
    """
    model = copy.deepcopy(model).to(dtype)
    fast = fastgen.accelerate(copy.deepcopy(model))
    kinds = {entry.kind.rpartition(".")[2] for entry in fastgen.accelerate_report(fast).replaced}
    assert kinds == set(replaced)
    torch.manual_seed(1)
    expected, expected_gradients = with_gradients(model, evaluate)
    torch.manual_seed(1)
    found, gradients = with_gradients(fast, evaluate)
    assert_same(found, expected)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert_same([a / b.abs().max().clamp(min=1)], [b / b.abs().max().clamp(min=1)])
    return fast


def assert_as_accurate_after_training(model: nn.Module, loss: Callable[[Any], Tensor], evaluate: Evaluate) -> None:
    """Trained in float32, results are at most twice as far from the same weights' in float64 as the untouched model's."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    fast, exact = fastgen.accelerate(copy.deepcopy(model)), copy.deepcopy(model).double()
    with torch.no_grad():
        for found, plain, truth in zip(evaluate(fast), evaluate(model), evaluate(exact), strict=True):
            assert_as_accurate(found.flatten(), plain.flatten(), truth.flatten())
