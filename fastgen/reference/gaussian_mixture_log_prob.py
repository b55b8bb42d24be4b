"""Log-density of a mixture of Gaussians."""

from __future__ import annotations

import math

from torch import Tensor

from .accumulate import accumulate, accumulator


def gaussian_mixture_log_prob(x: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """log sum_k w_k N(x; means_k, e^log_scales_k), w = softmax(weight_logits), each component a product over the last axis.

    Args:
        x: (..., D), floating.
        weight_logits: (K,) or (..., K), of x's dtype.
        means: (K, D) or (..., K, D).
        log_scales: of means' shape, or with a last axis of 1: one scale for all features of a component.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.
    """
    x, logits, means, log_scales = (t.to(accumulator(x.dtype)) for t in (x, weight_logits, means, log_scales))
    log_scales = log_scales.expand_as(means)
    z = (x[..., None, :] - means) * (-log_scales).exp()
    log_density = -0.5 * accumulate(z.square()) - accumulate(log_scales) - 0.5 * math.log(2 * math.pi) * x.shape[-1]
    return (logits.log_softmax(-1) + log_density).logsumexp(-1)
