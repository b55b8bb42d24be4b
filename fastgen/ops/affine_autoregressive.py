"""The affine transform of a masked autoregressive flow as an operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import ScaleMap
from . import _check
from ._library import apply, differentiable, empty_rows, per_row, register, room_for, twice_differentiable, wanted


def _forward(
    x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor | None, inverse: bool, kind: int, first: float, second: float
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("affine_autoregressive")
        return kernel.forward(x, shift, log_scale, log_det, inverse, kind, first, second)
    z, total = _forward_fake(x, shift, log_scale, log_det, inverse, kind, first, second)
    backends.compiled().affine_autoregressive_forward(x, shift, log_scale, log_det, inverse, kind, first, second, z, total)
    return z, total


def _forward_fake(
    x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor | None, inverse: bool, kind: int, first: float, second: float
) -> tuple[Tensor, Tensor]:
    return empty_rows(x), per_row(x)


def _backward(
    grad_z: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("affine_autoregressive")
        return kernel.backward(grad_z, grad_log_det, x, shift, log_scale, inverse, kind, first, second, needs)
    room = _backward_fake(grad_z, grad_log_det, x, shift, log_scale, inverse, kind, first, second, needs)
    backends.compiled().affine_autoregressive_backward(
        grad_z, grad_log_det, x, shift, log_scale, inverse, kind, first, second, *room
    )
    return room


def _backward_fake(
    grad_z: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return room_for(needs, x, x, x)  # type: ignore[return-value]


_call = register(
    "affine_autoregressive(Tensor x, Tensor shift, Tensor log_scale, Tensor? log_det, bool inverse, int kind, float first,"
    " float second) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "affine_autoregressive_backward(Tensor? grad_z, Tensor? grad_log_det, Tensor x, Tensor shift, Tensor log_scale,"
    " bool inverse, int kind, float first, float second, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


class _AffineAutoregressive(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor | None, inverse: bool, scale_map: ScaleMap
    ) -> tuple[Tensor, Tensor]:
        return _call(x, shift, log_scale, log_det, inverse, *scale_map.code)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        x, shift, log_scale, _, ctx.inverse, ctx.scale_map = inputs
        ctx.save_for_backward(x, shift, log_scale)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_z, grad_log_det):  # type: ignore[no-untyped-def]
        inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        grads: Sequence[Tensor | None] = (None, None, None)
        passed = grad_log_det if ctx.needs_input_grad[3] else None
        if not any(needs) or (grad_z is None and grad_log_det is None):
            return *grads, passed, None, None
        if twice_differentiable():

            def definition(x: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
                return reference.affine_autoregressive(x, shift, log_scale, inverse=ctx.inverse, scale_map=ctx.scale_map)

            grads = differentiable(definition, inputs, needs, (grad_z, grad_log_det))
        else:
            raw = _call_backward(grad_z, grad_log_det, *inputs, ctx.inverse, *ctx.scale_map.code, needs)
            grads = wanted(raw, needs)
        return *grads, passed, None, None


def affine_autoregressive(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    *,
    inverse: bool = False,
    scale_map: ScaleMap = ScaleMap(),
    log_det: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z = (x - shift) e^-s and log_det = -sum s, s = scale_map(log_scale); inverse: z = x e^s + shift and +sum s.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4. The inputs are read
    where they lie, whatever their strides: the views [..., 0] and [..., 1] of a network's output are not copied.

    Args:
        x, shift, log_scale: (..., D), of one floating dtype and device; any strides, any number of rows.
        inverse: the other direction, noise to data.
        scale_map: from `log_scale`, the raw network output, to s.
        log_det: (...,), read and added to the result, of the result's dtype.

    Returns:
        z (..., D) of x's dtype, and log_det (...,) in nats: float64 for float64 inputs, else float32. Under autocast half
        inputs are computed, and z returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    if log_det is None and backends.alike(x, shift, log_scale):
        return apply(_AffineAutoregressive, x, shift, log_scale, None, inverse, scale_map)
    x, shift, log_scale = _check.upcast(x, shift, log_scale)  # type: ignore[assignment]
    _validate(x, shift, log_scale, log_det)
    if backends.choose("affine_autoregressive", x, shift, log_scale, log_det).backend == "reference":
        return reference.affine_autoregressive(x, shift, log_scale, inverse=inverse, scale_map=scale_map, log_det=log_det)
    if x.dim() == 2:
        return apply(_AffineAutoregressive, x, shift, log_scale, log_det, inverse, scale_map)
    rows = (t.reshape(-1, t.shape[-1]) for t in (x, shift, log_scale))
    z, total = apply(_AffineAutoregressive, *rows, None if log_det is None else log_det.reshape(-1), inverse, scale_map)
    return z.view(x.shape), total.view(x.shape[:-1])


def _validate(x: Tensor, shift: Tensor, log_scale: Tensor, log_det: Tensor | None) -> None:
    _check.floating(x, "x")
    _check.features(x, "x")
    for t, name in ((shift, "shift"), (log_scale, "log_scale")):
        _check.like(t, name, x, "x")
        _check.shape(t, name, x.shape)
    if log_det is not None:
        _check.per_row(log_det, "log_det", x, "x")
