"""The affine transform of a masked autoregressive flow, given what its network put out."""

from __future__ import annotations

from torch import Tensor

from .accumulate import accumulate
from .scale_map import ScaleMap


def affine_autoregressive(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    *,
    inverse: bool = False,
    scale_map: ScaleMap = ScaleMap(),
    log_det: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z = (x - shift) e^-s and log_det = -sum s, s = scale_map(log_scale); inverse: z = x e^s + shift and +sum s.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4.

    Args:
        x, shift, log_scale: (..., D), of one floating dtype.
        inverse: the other direction, noise to data.
        scale_map: from `log_scale`, the raw network output, to s.
        log_det: (...,), read and added to the result.

    Returns:
        z (..., D) of x's dtype, and log_det (...,) in nats: float64 for float64 inputs, else float32.
    """
    s = scale_map(log_scale)
    z = x * s.exp() + shift if inverse else (x - shift) * (-s).exp()
    total = accumulate(s) if inverse else -accumulate(s)
    return z, total if log_det is None else log_det + total
