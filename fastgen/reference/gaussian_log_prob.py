"""Log-density of a diagonal Gaussian."""

from __future__ import annotations

import math

from torch import Tensor

from .accumulate import accumulate, accumulator
from .scale_map import ScaleMap


def gaussian_log_prob(
    x: Tensor, mean: Tensor | None = None, log_scale: Tensor | None = None, *, scale_map: ScaleMap = ScaleMap()
) -> Tensor:
    """log N(x; mean, e^s) = -1/2 sum(((x - mean) e^-s)^2) - sum s - D/2 log 2 pi, s = scale_map(log_scale), over the last axis.

    Without mean and log_scale the density is the standard normal's. With a network's two outputs for mean and log_scale
    it is the log-density of one block of a masked autoregressive flow over a standard normal, log_det included.

    Args:
        x: (..., D), floating.
        mean, log_scale: broadcastable to x, or None for 0.
        scale_map: from `log_scale` to s.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.
    """
    e = x if mean is None else x - mean
    if log_scale is None:
        return -0.5 * accumulate(e.to(accumulator(e.dtype)).square()) - 0.5 * math.log(2 * math.pi) * x.shape[-1]
    s = scale_map(log_scale).expand_as(x)
    z = e * (-s).exp()
    return -0.5 * accumulate(z.to(accumulator(z.dtype)).square()) - accumulate(s) - 0.5 * math.log(2 * math.pi) * x.shape[-1]
