"""Coupling layers: an affine or additive map of some features, given what a network made of the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .accumulate import accumulator
from .scale_map import ScaleMap

# The axis that a mask chooses along, features of vectors or channels of images, by the number of axes of an event.
MASKED_AXIS = {1: -1, 3: -3}


@dataclass(frozen=True)
class Checkerboard:
    """The mask of an image that is True where (h + w) % 2 == parity, in every channel (Dinh et al. 2017, figure 3).

    Raises ValueError for a parity other than 0 and 1.
    """

    parity: int

    def __post_init__(self) -> None:
        if self.parity not in (0, 1):
            raise ValueError(f"parity: expected 0 or 1, found {self.parity!r}")

    def on(self, height: int, width: int, device: torch.device | str | None = None) -> Tensor:
        """The mask as a tensor (height, width)."""
        h, w = torch.arange(height, device=device), torch.arange(width, device=device)
        return (h[:, None] + w) % 2 == self.parity


Mask = Tensor | Checkerboard


def affine_coupling(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    mask: Mask,
    *,
    event_dims: int = 1,
    inverse: bool = False,
    scale_map: ScaleMap = ScaleMap(),
    log_det: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y = x e^s + t and log_det = +sum s where the mask is True, y = x elsewhere; inverse: y = (x - t) e^-s and -sum s.

    t is the shift and s = scale_map(log_scale); the sum is over the entries where the mask is True. Dinh et al. 2017,
    "Density estimation using Real NVP", equations 7 and 8.

    Args:
        x: vectors (..., D) with event_dims 1, images (..., C, H, W) with event_dims 3, of a floating dtype.
        shift, log_scale: of x's shape, ignored where the mask is False; or compact, the entries where a mask of features or
            channels is True only, in order.
        mask: bool, (D,) for vectors or (C,) for images, True where an entry is transformed; or, for images, a Checkerboard.
        inverse: the other direction.
        scale_map: from `log_scale`, the raw network output, to s.
        log_det: (...,), read and added to the result.

    Returns:
        y of x's shape and dtype, and log_det (...,) in nats: float64 for float64 inputs, else float32.
    """
    chosen = entries(mask, x, event_dims)
    s = torch.where(chosen, scale_map(_spread(log_scale, x, mask, chosen, event_dims)), 0.0)
    t = _spread(shift, x, mask, chosen, event_dims)
    y = torch.where(chosen, (x - t) * (-s).exp() if inverse else x * s.exp() + t, x)
    total = s.to(accumulator(x.dtype)).sum(tuple(range(-event_dims, 0)))
    total = -total if inverse else total
    return y, total if log_det is None else log_det + total


def additive_coupling(
    x: Tensor, shift: Tensor, mask: Mask, *, event_dims: int = 1, inverse: bool = False, log_det: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y = x + shift where the mask is True, y = x elsewhere; inverse: y = x - shift. log_det is that given, or zeros.

    Dinh et al. 2015, "NICE: Non-linear Independent Components Estimation", section 3.2. Arguments and results as those of
    `affine_coupling`.
    """
    chosen = entries(mask, x, event_dims)
    t = _spread(shift, x, mask, chosen, event_dims)
    y = torch.where(chosen, x - t if inverse else x + t, x)
    batch = x.shape[: x.dim() - event_dims]
    return y, x.new_zeros(batch, dtype=accumulator(x.dtype)) if log_det is None else log_det.clone()


def entries(mask: Mask, x: Tensor, event_dims: int) -> Tensor:
    """Where the mask is True, as a tensor that broadcasts to x."""
    if isinstance(mask, Checkerboard):
        return mask.on(x.shape[-2], x.shape[-1], x.device)
    return mask.to(x.device).view(-1, *(1,) * (event_dims - 1))


def _spread(values: Tensor, x: Tensor, mask: Mask, chosen: Tensor, event_dims: int) -> Tensor:
    """The values at their entries, zeros where the mask is False: a number there, even a NaN, is not read."""
    if values.shape == x.shape:
        return torch.where(chosen, values, 0.0)
    assert isinstance(mask, Tensor)
    index = mask.nonzero().flatten().to(x.device)
    return torch.zeros_like(x).index_copy(MASKED_AXIS[event_dims], index, values)
