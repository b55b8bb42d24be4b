"""Planar flows: each layer pushes points along one direction by a bounded function of another, and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .accumulate import accumulator
from .activations import softplus
from .scale_map import log_softplus

# Newton's iteration ends long before: the largest number ever seen for a float32 input is 92.
MOST_STEPS = 100

# Below SERIES a - tanh(a) is taken from its Taylor series, whose coefficients of a^3, a^5, ... these are.
SERIES = 0.1
COEFFICIENTS = (
    1 / 3,
    -2 / 15,
    17 / 315,
    -62 / 2835,
    1382 / 155925,
    -21844 / 6081075,
    929569 / 638512875,
    -6404582 / 10854718875,
)


class Layer(NamedTuple):
    """One layer as it is applied: f(z) = z + direction tanh(w.z + b), where w.direction = stretch - 1."""

    direction: Tensor
    w: Tensor
    b: Tensor
    stretch: Tensor
    # For positive stretches, which float32 may have no number for.
    log_stretch: Tensor


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor, *, constrain: bool = True) -> tuple[Tensor, Tensor]:
    """K layers f(z) = z + u_hat tanh(w.z + b), from the first to the last.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equations 10 to 12 and appendix A.1. Constrained,
    u_hat = u + (softplus(w.u) - 1 - w.u) w / |w|^2, so that each layer is invertible; u_hat = u where w is 0. Unconstrained,
    u_hat = u, which need not be.

    Args:
        z: (..., D), floating.
        u, w: (K, D), or (..., K, D) with parameters for each row; of z's dtype.
        b: (K,) or (..., K).
        constrain: whether u_hat is made of u so that every layer is invertible.

    Returns:
        (..., D) of z's dtype, and the sum of log|det| of the layers (...,) in nats: float64 for float64 inputs, else float32.
    """
    point = z.to(accumulator(z.dtype))
    total = point.new_zeros(z.shape[:-1])
    for layer in layers(u, w, b, constrain):
        a = _dot(layer.w, point) + layer.b
        point = point + layer.direction * a.tanh()[..., None]
        total = total + _log_det(a, layer)
    return point.to(z.dtype), total


def planar_inverse(y: Tensor, u: Tensor, w: Tensor, b: Tensor, *, constrain: bool = True) -> tuple[Tensor, Tensor]:
    """The z with planar(z) = y, and -sum log|det| there: layers from the last to the first, one scalar equation each.

    Arguments and results as those of `planar`. Rows that an unconstrained layer with w.u < -1 would have to undo are NaN: it
    has no inverse.
    """
    point = y.to(accumulator(y.dtype))
    total = point.new_zeros(y.shape[:-1])
    for layer in reversed(layers(u, w, b, constrain)):
        a = _solve(_dot(layer.w, point) + layer.b, layer.stretch)
        point = point - layer.direction * a.tanh()[..., None]
        total = total - _log_det(a, layer)
    return point.to(y.dtype), total


def layers(u: Tensor, w: Tensor, b: Tensor, constrain: bool) -> list[Layer]:
    """The layers in the accumulator's dtype."""
    dtype = accumulator(u.dtype)
    separate = zip(u.to(dtype).unbind(-2), w.to(dtype).unbind(-2), b.to(dtype).unbind(-1), strict=True)
    return [_layer(*one, constrain) for one in separate]


def _layer(u: Tensor, w: Tensor, b: Tensor, constrain: bool) -> Layer:
    along = _dot(w, u)
    if not constrain:
        return Layer(u, w, b, 1 + along, (1 + along).abs().log())
    norm = _dot(w, w)
    singular = norm == 0
    missing = torch.where(singular, 0.0, (softplus(-along) - 1) / torch.where(singular, 1.0, norm))
    log_stretch = torch.where(singular, 0.0, log_softplus(along))
    return Layer(u + missing[..., None] * w, w, b, torch.where(singular, 1.0, softplus(along)), log_stretch)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _slope(a: Tensor) -> Tensor:
    """tanh'(a), which 1 - tanh(a)^2 has no digits of where |a| is large."""
    # Not abs, whose derivative at 0 would drop the second one of this.
    t = (-2 * torch.where(a < 0, -a, a)).exp()
    return 4 * t / (1 + t).square()


def _log_det(a: Tensor, layer: Layer) -> Tensor:
    """log|tanh(a)^2 + tanh'(a) stretch|: for positive stretches a sum of positive terms."""
    det = (a.tanh().square() + _slope(a) * layer.stretch).abs()
    # Where the dtype has no number for the sum, tanh(a) is a, and tanh'(a) is 1; unconstrained terms may also cancel.
    small = (det < torch.finfo(det.dtype).tiny) & (layer.stretch >= 0)
    rest = torch.where(small & (a != 0), a, 1.0).abs().log() * 2
    tail = torch.where(small & (a != 0), torch.logaddexp(rest, layer.log_stretch), layer.log_stretch)
    return torch.where(small, tail, torch.where(small, 1.0, det).log())


def _solve(r: Tensor, stretch: Tensor) -> Tensor:
    """The root a of a + (stretch - 1) tanh(a) = r; NaN where stretch < 0."""
    with torch.no_grad():
        a = torch.copysign(_newton(r.abs(), stretch.expand_as(r)), r)
    # Two more steps, through which first and second derivatives are those of the root.
    for _ in range(2):
        a = _step(a, r, stretch)
    return torch.where(stretch < 0, torch.nan, a)


def _newton(target: Tensor, stretch: Tensor) -> Tensor:
    """The root for target >= 0. The left side is concave for stretch >= 1, convex below: the iterates come from one side."""
    rises = stretch >= 1
    first, second = target / stretch, target - (stretch - 1)
    a = torch.where(rises, torch.maximum(first, second), torch.minimum(first, second))
    near = (5 * target).pow(1 / 3)
    a = torch.where(~rises & (near < 1), torch.minimum(a, near), a)
    a = torch.where(target == 0, 0.0, a)
    moving = torch.isfinite(a)
    for _ in range(MOST_STEPS):
        following = _step(a, target, stretch)
        moving = moving & torch.where(rises, following > a, following < a)
        if not moving.any():
            break
        a = torch.where(moving, following, a)
    return a


def _step(a: Tensor, target: Tensor, stretch: Tensor) -> Tensor:
    slope = a.tanh().square() + stretch * _slope(a)
    return a - (_minus_tanh(a) + stretch * a.tanh() - target) / torch.where(slope == 0, 1.0, slope)


def _minus_tanh(a: Tensor) -> Tensor:
    """a - tanh(a)."""
    near = a.abs() < SERIES
    small = torch.where(near, a, 0.0)
    square, series = small.square(), torch.zeros_like(a)
    for coefficient in reversed(COEFFICIENTS):
        series = series * square + coefficient
    return torch.where(near, small * square * series, a - a.tanh())
