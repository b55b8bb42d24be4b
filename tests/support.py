"""The error rule that results are held to, and the strides and scale maps that operations are tested with."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from fastgen.reference import ScaleMap


def rms_error(value: Tensor, truth: Tensor) -> float:
    """Root mean square of value - truth over that of truth's row (last axis), where truth is finite in value's dtype."""
    finite = truth.to(value.dtype).isfinite()
    row = torch.where(finite, truth, 0.0).square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(value.dtype).tiny)
    errors = ((value.to(truth.dtype) - truth) / row)[finite]
    return float(errors.square().mean().sqrt()) if errors.numel() else 0.0


Triple = tuple[Tensor, Tensor, Tensor]


def assert_as_accurate(result: Tensor, reference: Tensor, truth: Tensor) -> None:
    """The error of `result` against a float64 truth is at most twice that of the reference in the same dtype.

    Where PyTorch happens to be exact, two units in the last place are allowed.
    """
    assert_draws_as_accurate((result, reference, truth))


def assert_draws_as_accurate(*draws: Triple) -> None:
    """The same rule in the median over several draws, each a result, that of the reference and the truth.

    What rounding does to one draw of few numbers, or of maps that are all but singular somewhere, is chance.
    """
    shares = []
    for result, reference, truth in draws:
        assert result.dtype == reference.dtype and result.shape == reference.shape == truth.shape
        bound = max(2 * rms_error(reference, truth), 2 * torch.finfo(result.dtype).eps)
        shares.append(rms_error(result, truth) / bound)
    assert statistics.median(shares) <= 1, f"errors over what is allowed: {', '.join(f'{share:.3g}' for share in shares)}"


def strided_like(t: Tensor) -> list[Tensor]:
    """t at other strides: transposed, a column slice, every second column, every second row."""
    rows, features = t.shape
    transposed = t.t().contiguous().t()
    wide = t.new_full((rows, features + 3), torch.nan)
    wide[:, 1:-2] = t
    sparse = t.new_full((rows, features, 3), torch.nan)
    sparse[..., 1] = t
    tall = t.new_full((2 * rows, features), torch.nan)
    tall[1::2] = t
    return [transposed, wide[:, 1:-2], sparse[..., 1], tall[1::2]]


# Every formula of the scale maps, as kernels tell them apart.
SCALE_MAPS = {
    "identity": ScaleMap(),
    "softplus": ScaleMap("softplus"),
    "softplus_eps": ScaleMap("softplus", eps=1e-3),
    "sigmoid": ScaleMap("sigmoid"),
    "sigmoid_eps": ScaleMap("sigmoid", eps=1e-3),
    "soft_clip": ScaleMap("soft_clip", c=math.log(1000)),
    "tanh": ScaleMap("tanh", c=2.0),
    "clamp": ScaleMap("clamp", lo=-1.0, hi=0.5),
    "clamp_straight": ScaleMap("clamp_straight", lo=-1.0, hi=0.5),
}
