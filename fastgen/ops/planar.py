"""Planar flows and their inverse as operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference.accumulate import accumulator
from . import _check, _layers
from ._library import (
    apply,
    differentiable,
    empty_rows,
    needs_gradients,
    per_row,
    register,
    room_for,
    twice_differentiable,
    wanted,
)


def _forward(
    z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool, inverse: bool, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(z):
        return backends.kernels("planar").forward(z, u, w, b, constrain, inverse, save)
    out, log_det, saved = _forward_fake(z, u, w, b, constrain, inverse, save)
    backends.compiled().planar_forward(z, u, w, b, constrain, inverse, out, log_det, saved if save else None)
    return out, log_det, saved


def _forward_fake(
    z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool, inverse: bool, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the results and, where it is to be saved, for what each layer takes tanh of: (K, B)."""
    saved = z.new_empty((u.shape[-2], z.shape[0]) if save else (0, 0), dtype=accumulator(z.dtype))
    return empty_rows(z), per_row(z), saved


def _backward(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    u: Tensor,
    w: Tensor,
    b: Tensor,
    saved: Tensor,
    constrain: bool,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backends.on_triton(z):
        kernel = backends.kernels("planar")
        return kernel.backward(grad_out, grad_log_det, z, u, w, b, saved, constrain, inverse, needs)
    room = _backward_fake(grad_out, grad_log_det, z, u, w, b, saved, constrain, inverse, needs)
    backends.compiled().planar_backward(grad_out, grad_log_det, z, u, w, b, saved, constrain, inverse, *room)
    return room


def _backward_fake(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    u: Tensor,
    w: Tensor,
    b: Tensor,
    saved: Tensor,
    constrain: bool,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return room_for(needs, z, u, w, b)  # type: ignore[return-value]


_call = register(
    "planar(Tensor z, Tensor u, Tensor w, Tensor b, bool constrain, bool inverse, bool save) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "planar_backward(Tensor? grad_out, Tensor? grad_log_det, Tensor z, Tensor u, Tensor w, Tensor b, Tensor saved,"
    " bool constrain, bool inverse, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


class _Planar(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        return _call(z, u, w, b, constrain, inverse, True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        *tensors, ctx.constrain, ctx.inverse = inputs
        out, _, saved = output
        ctx.mark_non_differentiable(saved)
        ctx.set_materialize_grads(False)
        # The inverse's gradient is that of the layers at its solution.
        ctx.save_for_backward(*tensors, out if ctx.inverse else None, saved)

    @staticmethod
    def backward(ctx, grad_out, grad_log_det, _):  # type: ignore[no-untyped-def]
        *inputs, solution, saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[:4]
        if not any(needs) or (grad_out is None and grad_log_det is None):
            return (None,) * 6
        if twice_differentiable():
            definition = _DEFINITIONS[ctx.inverse]

            def layers(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
                return definition(z, u, w, b, constrain=ctx.constrain)

            return *differentiable(layers, inputs, needs, (grad_out, grad_log_det)), None, None
        z, *parameters = inputs
        read = z if solution is None else solution
        grads = _call_backward(grad_out, grad_log_det, read, *parameters, saved, ctx.constrain, ctx.inverse, needs)
        return *wanted(grads, needs), None, None


_DEFINITIONS = {False: reference.planar, True: reference.planar_inverse}


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor, *, constrain: bool = True) -> tuple[Tensor, Tensor]:
    """K layers f(z) = z + u_hat tanh(w.z + b), from the first to the last, and the sum of their log|det|.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equations 10 to 12 and appendix A.1. Constrained,
    u_hat = u + (softplus(w.u) - 1 - w.u) w / |w|^2, so that each layer is invertible; u_hat = u where w is 0. Unconstrained,
    u_hat = u, as some listings of planar flows have it: such a layer is invertible for w.u >= -1 only. u_hat grows like 1 / |w|
    as w vanishes: parameters must not start there. Layers that all rows share cost two thin matrix products.

    Args:
        z: (..., D), floating; any strides, any number of rows.
        u, w: (K, D), or (..., K, D) with parameters for each row, as an amortised posterior has; of z's dtype and device.
        b: (K,), or (..., K).
        constrain: whether u_hat is made of u so that every layer is invertible.

    Returns:
        (..., D) of z's dtype, and the sum of log|det| of the layers (...,) in nats: float64 for float64 inputs, else float32.
        Under autocast half inputs are computed, and the first result returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    return _run("planar", "z", z, u, w, b, constrain)


def planar_inverse(y: Tensor, u: Tensor, w: Tensor, b: Tensor, *, constrain: bool = True) -> tuple[Tensor, Tensor]:
    """The z with planar(z) = y, and -sum log|det| there: layers from the last to the first, one scalar equation each.

    Arguments, results and errors as those of `planar`. Newton's method ends when a step moves a root no further, so that, by
    layer and with s = 1 + |u_hat| |w|, f(z) is within 4 eps s (|y| + |u_hat| + |b|) of y (eps: unit roundoff). The gradient is
    that of an inverse function at the solution. Rows that an unconstrained layer with w.u < -1 would have to undo are NaN, for
    want of an inverse.
    """
    return _run("planar_inverse", "y", y, u, w, b, constrain)


def _run(operation: str, name: str, z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool) -> tuple[Tensor, Tensor]:
    inverse = operation == "planar_inverse"
    if _layers.usual(z, (u, w), (b,)):
        return _layers_of(z, u, w, b, constrain, inverse)
    z, u, w, b = _check.upcast(z, u, w, b)  # type: ignore[assignment]
    _layers.validate(z, name, {"u": u, "w": w}, {"b": b})
    if backends.choose(operation, z, u, w, b).backend == "reference":
        return _DEFINITIONS[inverse](z, u, w, b, constrain=constrain)
    rows = _layers.matrix(z), _layers.vectors(u), _layers.vectors(w), _layers.numbers(b)
    out, log_det = _layers_of(*rows, constrain, inverse)
    return (out, log_det) if z.dim() == 2 else (out.view(z.shape), log_det.view(z.shape[:-1]))


def _layers_of(z: Tensor, u: Tensor, w: Tensor, b: Tensor, constrain: bool, inverse: bool) -> tuple[Tensor, Tensor]:
    if needs_gradients(z, u, w, b):
        return apply(_Planar, z, u, w, b, constrain, inverse)[:2]
    return _call(z, u, w, b, constrain, inverse, False)[:2]
