"""The activations that kernels fuse: those whose derivative is a function of their output."""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import expm1, sigmoid, tanh

FUSED = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid")


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
