"""Ways between two points of noise."""

from __future__ import annotations

import torch
from torch import Tensor

# Below this sine of the angle between them two directions are the same, or opposite, as far as rounding can tell.
SMALLEST_SINE = 1e-4


def line(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Equal steps on the straight line between points (..., D): (steps, ..., D), ends included."""
    weight = _weights(start, end, steps)
    return (1 - weight) * start + weight * end


def arc(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Equal angles on the way between points (..., D) that keeps to the lengths of normal noise: (steps, ..., D).

    Shoemake 1985, "Animating rotation with quaternion curves", section 3.3; a straight line between points in one direction or
    in opposite ones.
    """
    weight = _weights(start, end, steps)
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1)[..., None].clamp(-1, 1)
    angle = cosine.acos()
    curved = angle.sin() > SMALLEST_SINE
    angle = torch.where(curved, angle, 1.0)
    first, second = (torch.where(curved, (w * angle).sin() / angle.sin(), w) for w in (1 - weight, weight))
    return first * start + second * end


def _weights(start: Tensor, end: Tensor, steps: int) -> Tensor:
    ones = (1,) * max(start.dim(), end.dim())
    return torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(-1, *ones)
