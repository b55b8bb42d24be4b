"""Radial flows: each layer contracts or expands around a point, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from .accumulate import accumulator
from .activations import softplus


def radial(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    """K layers f(z) = z + beta (z - c) / (alpha + |z - c|), from the first to the last.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equation 14 and appendix A.2: alpha =
    e^log_alpha, and beta = softplus(raw_beta) - alpha, so that every layer is invertible.

    Args:
        z: (..., D), floating.
        centre: c, (K, D), or (..., K, D) with parameters for each row; of z's dtype.
        log_alpha, raw_beta: (K,) or (..., K).

    Returns:
        (..., D) of z's dtype, and the sum of log|det| of the layers (...,) in nats: float64 for float64 inputs, else float32.
    """
    return _through(z, centre, log_alpha, raw_beta, inverse=False)


def radial_inverse(y: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    """The z with radial(z) = y, and -sum log|det| there: layers from the last to the first, each in closed form.

    Arguments and results as those of `radial`.
    """
    return _through(y, centre, log_alpha, raw_beta, inverse=True)


def _through(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    dtype = accumulator(z.dtype)
    point = z.to(dtype)
    total = point.new_zeros(z.shape[:-1])
    alpha, reach = log_alpha.to(dtype).exp(), softplus(raw_beta.to(dtype))
    layers = list(zip(centre.to(dtype).unbind(-2), alpha.unbind(-1), reach.unbind(-1), strict=True))
    for c, a, s in reversed(layers) if inverse else layers:
        away = point - c
        length = _norm(away)
        r = _radius(length, a, s) if inverse else length
        ratio = (r + s) / (r + a)
        log_det = (z.shape[-1] - 1) * ratio.log() + ((r * r + 2 * a * r + a * s) / (r + a).square()).log()
        point = c + (away / ratio[..., None] if inverse else away * ratio[..., None])
        total = total - log_det if inverse else total + log_det
    return point.to(z.dtype), total


def _norm(v: Tensor) -> Tensor:
    """|v|, whose gradient at 0 is 0."""
    square = v.square().sum(-1)
    return torch.where(square == 0, 0.0, torch.where(square == 0, 1.0, square).sqrt())


def _radius(length: Tensor, alpha: Tensor, reach: Tensor) -> Tensor:
    """The root r >= 0 of r (r + reach) / (r + alpha) = length."""
    d = length - reach
    q = (d.square() + 4 * alpha * length).sqrt()
    return torch.where(d > 0, (d + q) / 2, 2 * alpha * length / torch.where(d > 0, 1.0, q - d))
