"""The error rule that results are held to."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_error(value: Tensor, truth: Tensor) -> float:
    """Root mean square of value - truth, relative to that of truth's row (last axis), where truth is finite in value's dtype."""
    finite = truth.to(value.dtype).isfinite()
    row = torch.where(finite, truth, 0.0).square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(value.dtype).tiny)
    errors = ((value.to(truth.dtype) - truth) / row)[finite]
    return float(errors.square().mean().sqrt()) if errors.numel() else 0.0


def assert_as_accurate(result: Tensor, reference: Tensor, truth: Tensor) -> None:
    """The error of `result` against a float64 truth is at most twice that of the reference in the same dtype.

    Where PyTorch happens to be exact, four units in the last place are allowed.
    """
    assert result.dtype == reference.dtype and result.shape == reference.shape == truth.shape
    bound = max(2 * rms_error(reference, truth), 4 * torch.finfo(result.dtype).eps)
    assert rms_error(result, truth) <= bound, f"error {rms_error(result, truth):.3g}, allowed {bound:.3g}"
