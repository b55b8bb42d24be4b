"""The activations in kernels. FUSED: those whose derivative is a function of their output."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import erf, exp, expm1, sigmoid, softplus, tanh

FUSED = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid")


_SQRT_HALF = tl.constexpr(0.70710678118654752440)
_INVERSE_SQRT_2_PI = tl.constexpr(0.39894228040143267794)


# Comparisons are written so that a NaN stays one.
@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        return tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "leaky_relu":
        return tl.where(x < 0, 0.01 * x, x)
    elif ACTIVATION == "elu":
        return tl.where(x < 0, expm1(x), x)
    elif ACTIVATION == "tanh":
        return tanh(x)
    elif ACTIVATION == "sigmoid":
        return sigmoid(x)
    elif ACTIVATION == "softplus":
        return softplus(x)
    elif ACTIVATION == "silu":
        return x * sigmoid(x)
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1.0 + erf(x * _SQRT_HALF))
    else:
        return x


@triton.jit
def through_activation(grad, y, ACTIVATION: tl.constexpr):
    """The gradient before an activation, given the one after it and its output y."""
    if ACTIVATION == "relu":
        return tl.where(y <= 0, 0.0, grad)
    elif ACTIVATION == "leaky_relu":
        return tl.where(y <= 0, 0.01 * grad, grad)
    elif ACTIVATION == "elu":
        return tl.where(y <= 0, grad * (y + 1.0), grad)
    elif ACTIVATION == "tanh":
        return grad * (1.0 - y * y)
    elif ACTIVATION == "sigmoid":
        return grad * y * (1.0 - y)
    else:
        return grad


@triton.jit
def through_activation_of(grad, x, ACTIVATION: tl.constexpr):
    """The gradient before an activation, given the one after it and its argument x."""
    if ACTIVATION == "softplus":
        return grad * sigmoid(x)
    elif ACTIVATION == "silu":
        up = sigmoid(x)
        return grad * up * (1.0 + x * (1.0 - up))
    elif ACTIVATION == "gelu":
        return grad * (0.5 * (1.0 + erf(x * _SQRT_HALF)) + x * exp(-0.5 * x * x) * _INVERSE_SQRT_2_PI)
    else:
        return through_activation(grad, activate(x, ACTIVATION), ACTIVATION)
