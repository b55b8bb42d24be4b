"""The importance-weighted bound as an operation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import reference
from ..reference.accumulate import accumulator
from . import _check
from ._library import apply, differentiable, twice_differentiable


class _IwaeBound(torch.autograd.Function):
    """PyTorch operations throughout: what there is to gain is the graph between them, not a kernel."""

    @staticmethod
    def forward(log_w: Tensor) -> Tensor:
        return log_w.logsumexp(0) - math.log(log_w.shape[0])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        log_w, bound = ctx.saved_tensors
        if twice_differentiable():
            return differentiable(reference.iwae_bound, (log_w,), ctx.needs_input_grad, (grad,))[0]
        # Where all weights are 0, 0 is taken off log_w = -inf.
        shift = torch.where(bound == -math.inf, 0.0, bound + math.log(log_w.shape[0]))
        return grad * (log_w - shift).exp()


def iwae_bound(log_w: Tensor) -> Tensor:
    """log of the mean of e^log_w over the first axis, whose gradient is the normalised weights.

    Burda et al. 2016, "Importance Weighted Autoencoders", equation 8. Where all weights are 0 it is -inf, with gradient 0.

    Args:
        log_w: (samples, ...), floating, in nats; any strides.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32.

    Raises:
        TypeError, ValueError: no floating tensor, or no samples.
    """
    _check.floating(log_w, "log_w")
    if log_w.dim() == 0 or log_w.shape[0] == 0:
        raise ValueError(f"log_w: expected shape (at least 1, ...), found {tuple(log_w.shape)}")
    return apply(_IwaeBound, log_w.to(accumulator(log_w.dtype)))
