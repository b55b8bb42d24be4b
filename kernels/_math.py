"""Elementary functions to a few units in the last place, on a GPU and in Triton's interpreter.

`tl.exp` and `tl.log` of float32 are the hardware's approximations, off by far more for large or nearly-one arguments;
the interpreter has no libdevice.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

HALF_LOG_2_PI = tl.constexpr(0.91893853320467274178)
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def widen(x):
    """x in the dtype that sums are taken in: float64 for float64, else float32."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def divide(x, y):
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def exp(x):
    if INTERPRETED:
        return tl.exp(x)
    else:
        return libdevice.exp(x)


@triton.jit
def log(x):
    if INTERPRETED:
        return tl.log(x)
    else:
        return libdevice.log(x)


@triton.jit
def erf(x):
    if INTERPRETED:
        return tl.erf(x)
    else:
        return libdevice.erf(x)


@triton.jit
def expm1(x):
    if INTERPRETED:
        # Kahan: the rounding errors of e^x and of its logarithm cancel. Far from 0 e^x - 1 needs no help.
        u = tl.exp(x)
        near = (tl.abs(x) < 1.0) & (u != 1.0)
        return tl.where(near, (u - 1.0) * x / tl.log(tl.where(near, u, 2.0)), tl.where(u == 1.0, x, u - 1.0))
    else:
        return libdevice.expm1(x)


@triton.jit
def log1p(x):
    if INTERPRETED:
        u = 1.0 + x
        near = (tl.abs(x) < 1.0) & (u != 1.0)
        return tl.where(
            near, tl.log(tl.where(near, u, 2.0)) * x / tl.where(near, u - 1.0, 1.0), tl.where(u == 1.0, x, tl.log(u))
        )
    else:
        return libdevice.log1p(x)


@triton.jit
def tanh(x):
    if INTERPRETED:
        t = expm1(-2.0 * tl.abs(x))
        return tl.where(x < 0, t / (t + 2.0), -t / (t + 2.0))
    else:
        return libdevice.tanh(x)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + exp(-x))


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p(exp(-tl.abs(x)))
