"""The importance-weighted bound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .accumulate import accumulator


def iwae_bound(log_w: Tensor) -> Tensor:
    """log of the mean of e^log_w over the first axis, whose gradient is the normalised weights.

    Burda et al. 2016, "Importance Weighted Autoencoders", equation 8. Where all weights are 0 it is -inf, with gradient 0.

    Args:
        log_w: (samples, ...), floating, in nats.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.
    """
    log_w = log_w.to(accumulator(log_w.dtype))
    largest = log_w.detach().amax(0)
    nothing = largest == -math.inf
    reference = torch.where(nothing | (largest == math.inf), 0.0, largest)
    total = (log_w - reference).exp().sum(0)
    return torch.where(nothing, -math.inf, torch.where(nothing, 1.0, total).log() + reference) - math.log(log_w.shape[0])
