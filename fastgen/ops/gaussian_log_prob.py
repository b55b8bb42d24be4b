"""The log-density of a diagonal Gaussian as an operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import ScaleMap
from . import _check
from ._library import apply, differentiable, per_row, register, room_for, twice_differentiable, wanted


def _forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None, kind: int, first: float, second: float) -> Tensor:
    if backends.on_triton(x):
        return backends.kernels("gaussian_log_prob").forward(x, mean, log_scale, kind, first, second)
    log_prob = _forward_fake(x, mean, log_scale, kind, first, second)
    backends.compiled().gaussian_log_prob_forward(x, mean, log_scale, kind, first, second, log_prob)
    return log_prob


def _forward_fake(x: Tensor, mean: Tensor | None, log_scale: Tensor | None, kind: int, first: float, second: float) -> Tensor:
    return per_row(x)


def _backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor | None,
    log_scale: Tensor | None,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("gaussian_log_prob")
        return kernel.backward(grad, x, mean, log_scale, kind, first, second, needs)
    room = _backward_fake(grad, x, mean, log_scale, kind, first, second, needs)
    backends.compiled().gaussian_log_prob_backward(grad, x, mean, log_scale, kind, first, second, *room)
    return room


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    mean: Tensor | None,
    log_scale: Tensor | None,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return room_for(needs, x, x, x)  # type: ignore[return-value]


_call = register(
    "gaussian_log_prob(Tensor x, Tensor? mean, Tensor? log_scale, int kind, float first, float second) -> Tensor",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "gaussian_log_prob_backward(Tensor grad, Tensor x, Tensor? mean, Tensor? log_scale, int kind, float first, float second,"
    " bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


class _GaussianLogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, mean: Tensor | None, log_scale: Tensor | None, scale_map: ScaleMap) -> Tensor:
        return _call(x, mean, log_scale, *scale_map.code)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        x, mean, log_scale, ctx.scale_map = inputs
        ctx.save_for_backward(x, mean, log_scale)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        if twice_differentiable():

            def definition(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> Tensor:
                return reference.gaussian_log_prob(x, mean, log_scale, scale_map=ctx.scale_map)

            return *differentiable(definition, inputs, needs, (grad,)), None
        grads = _call_backward(grad, *inputs, *ctx.scale_map.code, needs)
        return *wanted(grads, needs), None


def gaussian_log_prob(
    x: Tensor, mean: Tensor | None = None, log_scale: Tensor | None = None, *, scale_map: ScaleMap = ScaleMap()
) -> Tensor:
    """log N(x; mean, e^s) summed over the last axis, s = scale_map(log_scale).

    That is -1/2 sum(((x - mean) e^-s)^2) - sum s - D/2 log 2 pi. Without mean and log_scale the density is the standard
    normal's. With a network's two outputs for mean and log_scale it is the log-density of one block of a masked
    autoregressive flow over a standard normal, log_det included (Papamakarios et al. 2017, "Masked Autoregressive Flow for
    Density Estimation", equations 3 and 4).

    Args:
        x: (..., D), floating; any strides, any number of rows.
        mean, log_scale: broadcastable to x, of its dtype and device, or None for 0; any strides.
        scale_map: from `log_scale` to s.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32. Under autocast half inputs are computed in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    if backends.alike(*(t for t in (x, mean, log_scale) if t is not None)):
        return apply(_GaussianLogProb, x, mean, log_scale, scale_map)
    x, mean, log_scale = _check.upcast(x, mean, log_scale)  # type: ignore[assignment]
    _validate(x, mean, log_scale)
    if backends.choose("gaussian_log_prob", x, mean, log_scale).backend == "reference":
        return reference.gaussian_log_prob(x, mean, log_scale, scale_map=scale_map)
    if x.dim() == 2:
        return apply(_GaussianLogProb, x, _expanded(mean, x), _expanded(log_scale, x), scale_map)
    rows = (t if t is None else t.reshape(-1, t.shape[-1]) for t in (x, _expanded(mean, x), _expanded(log_scale, x)))
    return apply(_GaussianLogProb, *rows, scale_map).view(x.shape[:-1])


def _expanded(t: Tensor | None, x: Tensor) -> Tensor | None:
    """t at x's shape: outside the Function, so that autograd sums the gradient of what was broadcast."""
    return t if t is None or t.shape == x.shape else t.expand(x.shape)


def _validate(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> None:
    _check.floating(x, "x")
    _check.features(x, "x")
    for t, name in ((mean, "mean"), (log_scale, "log_scale")):
        if t is not None:
            _check.like(t, name, x, "x")
            _check.broadcastable(t, name, x, "x")
