"""Radial flows and their inverse as operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from . import _check, _layers
from ._library import apply, differentiable, empty_rows, per_row, register, room_for, twice_differentiable, wanted


def _forward(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    if backends.on_triton(z):
        return backends.kernels("radial").forward(z, centre, log_alpha, raw_beta, inverse)
    out, log_det = _forward_fake(z, centre, log_alpha, raw_beta, inverse)
    backends.compiled().radial_forward(z, centre, log_alpha, raw_beta, inverse, out, log_det)
    return out, log_det


def _forward_fake(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return empty_rows(z), per_row(z)


def _backward(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    centre: Tensor,
    log_alpha: Tensor,
    raw_beta: Tensor,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backends.on_triton(z):
        return backends.kernels("radial").backward(grad_out, grad_log_det, z, centre, log_alpha, raw_beta, inverse, needs)
    room = _backward_fake(grad_out, grad_log_det, z, centre, log_alpha, raw_beta, inverse, needs)
    backends.compiled().radial_backward(grad_out, grad_log_det, z, centre, log_alpha, raw_beta, inverse, *room)
    return room


def _backward_fake(
    grad_out: Tensor | None,
    grad_log_det: Tensor | None,
    z: Tensor,
    centre: Tensor,
    log_alpha: Tensor,
    raw_beta: Tensor,
    inverse: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return room_for(needs, z, centre, log_alpha, raw_beta)  # type: ignore[return-value]


_call = register(
    "radial(Tensor z, Tensor centre, Tensor log_alpha, Tensor raw_beta, bool inverse) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "radial_backward(Tensor? grad_out, Tensor? grad_log_det, Tensor z, Tensor centre, Tensor log_alpha, Tensor raw_beta,"
    " bool inverse, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


class _Radial(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return _call(z, centre, log_alpha, raw_beta, inverse)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        *tensors, ctx.inverse = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad_out, grad_log_det):  # type: ignore[no-untyped-def]
        inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[:4]
        if not any(needs) or (grad_out is None and grad_log_det is None):
            return (None,) * 5
        if twice_differentiable():
            return *differentiable(_DEFINITIONS[ctx.inverse], inputs, needs, (grad_out, grad_log_det)), None
        grads = _call_backward(grad_out, grad_log_det, *inputs, ctx.inverse, needs)
        return *wanted(grads, needs), None


_DEFINITIONS = {False: reference.radial, True: reference.radial_inverse}


def radial(z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    """K layers f(z) = z + beta (z - c) / (alpha + |z - c|), from the first to the last, and the sum of their log|det|.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equation 14 and appendix A.2: alpha =
    e^log_alpha, and beta = softplus(raw_beta) - alpha, so that every layer is invertible.

    Args:
        z: (..., D), floating; any strides, any number of rows.
        centre: c, (K, D), or (..., K, D) with parameters for each row; of z's dtype and device.
        log_alpha, raw_beta: (K,), or (..., K).

    Returns:
        (..., D) of z's dtype, and the sum of log|det| of the layers (...,) in nats: float64 for float64 inputs, else float32.
        Under autocast half inputs are computed, and the first result returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    return _run("radial", "z", z, centre, log_alpha, raw_beta)


def radial_inverse(y: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    """The z with radial(z) = y, and -sum log|det| there: layers from the last to the first, each in closed form.

    Arguments, results and errors as those of `radial`.
    """
    return _run("radial_inverse", "y", y, centre, log_alpha, raw_beta)


def _run(operation: str, name: str, z: Tensor, centre: Tensor, log_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    inverse = operation == "radial_inverse"
    if _layers.usual(z, (centre,), (log_alpha, raw_beta)):
        return apply(_Radial, z, centre, log_alpha, raw_beta, inverse)
    z, centre, log_alpha, raw_beta = _check.upcast(z, centre, log_alpha, raw_beta)  # type: ignore[assignment]
    _layers.validate(z, name, {"centre": centre}, {"log_alpha": log_alpha, "raw_beta": raw_beta})
    if backends.choose(operation, z, centre, log_alpha, raw_beta).backend == "reference":
        return _DEFINITIONS[inverse](z, centre, log_alpha, raw_beta)
    rows = _layers.matrix(z), _layers.vectors(centre), _layers.numbers(log_alpha), _layers.numbers(raw_beta)
    out, log_det = apply(_Radial, *rows, inverse)
    return (out, log_det) if z.dim() == 2 else (out.view(z.shape), log_det.view(z.shape[:-1]))
