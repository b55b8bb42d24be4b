"""The affine map of couplings and autoregressive transforms, and its gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import exp


@triton.jit
def affine(u, t, s, INVERSE: tl.constexpr):
    """u e^s + t; inverse: (u - t) e^-s."""
    return (u - t) * exp(-s) if INVERSE else u * exp(s) + t


@triton.jit
def affine_gradients(g, gl, u, t, s, INVERSE: tl.constexpr):
    """The gradients of u, t and s, given g of the map's value and gl of its log-determinant, s or, inverse, -s."""
    if INVERSE:
        gu = g * exp(-s)
        return gu, -gu, -gu * (u - t) - gl
    else:
        gu = g * exp(s)
        return gu, g, gu * u + gl
