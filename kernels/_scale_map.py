"""The scale maps of `fastgen.reference.ScaleMap` in kernels: KIND, A and B are its `code`."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import divide, exp, log, log1p, sigmoid, softplus, tanh

SOFTPLUS = tl.constexpr(1)
SIGMOID = tl.constexpr(2)
SOFT_CLIP = tl.constexpr(3)
TANH = tl.constexpr(4)
CLAMP = tl.constexpr(5)
CLAMP_STRAIGHT = tl.constexpr(6)

# Below this log(softplus(a)) is a - e^a / 2 to the last digit of float64, while softplus itself underflows.
_SMALL = tl.constexpr(-18.0)


@triton.jit
def log_scale_of(a, KIND: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """s, the log-scale, of a, the raw output of a network."""
    if KIND == SOFTPLUS:
        if A == 0.0:
            small = a < _SMALL
            return tl.where(small, a - 0.5 * exp(tl.where(small, a, _SMALL)), log(softplus(tl.where(small, 0.0, a))))
        else:
            return log(softplus(a) + A)
    elif KIND == SIGMOID:
        if A == 0.0:
            return tl.minimum(a + 2.0, 0.0) - log1p(exp(-tl.abs(a + 2.0)))
        else:
            return log(sigmoid(a + 2.0) + A)
    elif KIND == SOFT_CLIP:
        return divide(a, 1.0 + tl.abs(a / A))
    elif KIND == TANH:
        return A * tanh(a / A)
    elif KIND >= CLAMP:
        return tl.where(a < A, A, tl.where(a > B, B, a))
    else:
        return a


@triton.jit
def through_scale_map(grad, a, KIND: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """The gradient of a, given the one of its log-scale."""
    if KIND == SOFTPLUS:
        if A == 0.0:
            small = a < _SMALL
            tail = tl.where(small, 0.0, a)
            return grad * tl.where(small, 1.0 - 0.5 * exp(tl.where(small, a, _SMALL)), sigmoid(tail) / softplus(tail))
        else:
            return grad * sigmoid(a) / (softplus(a) + A)
    elif KIND == SIGMOID:
        down = sigmoid(-2.0 - a)
        if A == 0.0:
            return grad * down
        else:
            up = sigmoid(a + 2.0)
            return grad * (up * down / (up + A))
    elif KIND == SOFT_CLIP:
        r = 1.0 / (1.0 + tl.abs(a / A))
        return grad * r * r
    elif KIND == TANH:
        t = tanh(a / A)
        return grad * (1.0 - t * t)
    elif KIND == CLAMP:
        return tl.where((a < A) | (a > B), 0.0, grad)
    else:
        return grad
