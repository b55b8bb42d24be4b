"""Reparameterised samples of a diagonal Gaussian, with its divergence from another or with their log-ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from .accumulate import accumulate, accumulator
from .philox import philox_normal

# Below this, e^d - 1 - d is taken from its series: the difference would lose digits.
_SERIES = 0.5
_TERMS = 14


def gaussian_rsample_kl(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_var: Tensor | None = None,
    *,
    samples: int | None = None,
    free_bits: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z = mean + e^{log_var / 2} eps with eps ~ N(0, I), and KL(N(mean, e^log_var) || prior) in closed form.

    Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 2.4 and appendix B:
    KL = 1/2 sum_j [e^d - 1 - d + (mean - prior_mean)^2 e^-prior_log_var], d = log_var - prior_log_var. The noise is
    `philox_normal` of the seed: the same seed gives the same z.

    Args:
        mean, log_var: (..., D), of one floating dtype.
        prior_mean, prior_log_var: broadcastable to mean; None, both, for the standard normal.
        samples: how many z for each row; None for one without an axis of its own.
        free_bits: lambda >= 0 in nats: each feature counts max(KL_j, lambda), without gradient below (Kingma et al. 2016,
            "Improving Variational Inference with Inverse Autoregressive Flow", appendix C.8, for each row alone).
        seed: int64, one number on mean's device; None draws one from torch's generator there.

    Returns:
        z of mean's dtype, (..., D) or (samples, ..., D), and kl (...,) in nats: float64 for float64 inputs, else float32.
    """
    m, v, pm, pv = _promoted(mean, log_var, prior_mean, prior_log_var)
    d = v - pv
    kl = 0.5 * (_exp_minus_1_minus(d) + (m - pm).square() * (-pv).exp())
    if free_bits > 0:
        kl = kl.clamp(min=free_bits)
    return _samples(m, v, samples, seed).to(mean.dtype), accumulate(kl)


def gaussian_rsample_log_ratio(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_var: Tensor | None = None,
    *,
    samples: int,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z as `gaussian_rsample_kl` draws it, and log q(z) - log p(z) of each: q = N(mean, e^log_var), p the prior.

    What the importance weights of Burda et al. 2016, "Importance Weighted Autoencoders", are made of. Arguments as there.

    Returns:
        z (samples, ..., D) of mean's dtype, and the log-ratio (samples, ...) in nats: float64 for float64 inputs, else float32.
    """
    m, v, pm, pv = _promoted(mean, log_var, prior_mean, prior_log_var)
    eps = _noise(m, samples, seed)
    z = m + (0.5 * v).exp() * eps
    ratio = 0.5 * ((z - pm).square() * (-pv).exp() - eps.square() - (v - pv))
    return z.to(mean.dtype), accumulate(ratio)


def _promoted(mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None) -> list[Tensor]:
    dtype = accumulator(mean.dtype)
    zero = mean.new_zeros((), dtype=dtype)
    return [zero if t is None else t.to(dtype) for t in (mean, log_var, prior_mean, prior_log_var)]


def _samples(mean: Tensor, log_var: Tensor, samples: int | None, seed: Tensor | None) -> Tensor:
    return mean + (0.5 * log_var).exp() * _noise(mean, samples, seed)


def _noise(mean: Tensor, samples: int | None, seed: Tensor | None) -> Tensor:
    shape = tuple(mean.shape) if samples is None else (samples, *mean.shape)
    return philox_normal(shape, draw_seed(mean.device) if seed is None else seed, mean.dtype)


def draw_seed(device: torch.device) -> Tensor:
    """An int64 seed on the device, from torch's generator there."""
    return torch.randint(-(2**63), 2**63 - 1, (), device=device)


def _exp_minus_1_minus(d: Tensor) -> Tensor:
    """e^d - 1 - d."""
    near = d.abs() < _SERIES
    small = torch.where(near, d, 0.0)
    series = torch.ones_like(small)
    for n in range(_TERMS, 2, -1):
        series = 1 + small / n * series
    return torch.where(near, 0.5 * small.square() * series, torch.where(near, 0.0, d).expm1() - d)
