"""Log-probabilities of what decoders put out, summed over features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .accumulate import accumulate, accumulator


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """sum of x log sigmoid(l) + (1 - x) log sigmoid(-l) over the last axis.

    An infinite logit is a certain outcome: log-probability 0 where it happens, -inf where it does not.

    Args:
        x: (..., D), in [0, 1].
        logits: l, (..., D), of x's dtype; x and logits broadcast against each other.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.
    """
    logit, p = logits.to(accumulator(logits.dtype)), x.to(accumulator(x.dtype))
    # Not abs, whose gradient at 0 is 0.
    size = torch.where(logit < 0, -logit, logit)
    unlikely = torch.where(logit < 0, p, 1 - p)
    cost = unlikely * torch.where((unlikely == 0) & size.isinf(), 0.0, size)
    return accumulate(-cost - torch.log1p(torch.exp(-size)))


def categorical_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """sum of log softmax(logits)_x over the features.

    Args:
        x: (..., D), int64, categories 0..C-1.
        logits: (..., D, C), floating; its axes before the last and x's broadcast against each other.

    Returns:
        (...,) in nats: float64 for float64 logits, else float32.
    """
    log_p = logits.to(accumulator(logits.dtype)).log_softmax(-1)
    shape = torch.broadcast_shapes(x.shape, logits.shape[:-1])
    return log_p.expand(*shape, -1).gather(-1, x.expand(shape)[..., None])[..., 0].sum(-1)


def discretized_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, *, levels: int = 256) -> Tensor:
    """sum of the log-probability that a logistic variable gives the interval around each level, over the last axis.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", appendix C.6: sigmoid((x + h - mean)
    e^-log_scale) - sigmoid((x - h - mean) e^-log_scale), h = 1 / (2 (levels - 1)); the intervals at 0 and 1 have no other end.

    Args:
        x: (..., D), on the grid 0, 1 / (levels - 1), ..., 1.
        mean, log_scale: (..., D), of x's dtype; all three broadcast against one another.
        levels: how many grid points.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.
    """
    x, mean, log_scale = (t.to(accumulator(t.dtype)) for t in (x, mean, log_scale))
    half, precision = 0.5 / (levels - 1), (-log_scale).exp()
    above, below = (x - mean + half) * precision, (x - mean - half) * precision
    from_below, from_above = F.logsigmoid(above), F.logsigmoid(-below)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)), without a difference of near numbers.
    inside = from_below + from_above + _log_1_minus_exp(2 * half * precision)
    return accumulate(torch.where(x < half, from_below, torch.where(x > 1 - half, from_above, inside)))


def _log_1_minus_exp(d: Tensor) -> Tensor:
    """log(1 - e^-d) for d > 0."""
    near = d < 0.69
    return torch.where(
        near, (-torch.expm1(-torch.where(near, d, 1.0))).log(), torch.log1p(-torch.exp(-torch.where(near, 1.0, d)))
    )
