"""The log-density of a mixture of Gaussians as an operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference.accumulate import accumulator
from . import _check
from ._library import apply, differentiable, per_row, register, room_for, twice_differentiable, wanted
from .gaussian_log_prob import gaussian_log_prob

_Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _forward(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """log_prob, and what its rounding took off: responsibilities feel that where densities are far from 1."""
    if backends.on_triton(x):
        return backends.kernels("gaussian_mixture_log_prob").forward(x, log_weights, means, log_scales)
    log_prob, remainder = _forward_fake(x, log_weights, means, log_scales)
    backends.compiled().gaussian_mixture_log_prob_forward(x, log_weights, means, log_scales, log_prob, remainder)
    return log_prob, remainder


def _forward_fake(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    return per_row(x), per_row(x)


def _backward(
    grad: Tensor,
    log_prob: Tensor,
    remainder: Tensor,
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    log_scales: Tensor,
    needs: Sequence[bool],
) -> _Four:
    if backends.on_triton(x):
        kernel = backends.kernels("gaussian_mixture_log_prob")
        return kernel.backward(grad, log_prob, remainder, x, log_weights, means, log_scales, needs)
    room = _backward_fake(grad, log_prob, remainder, x, log_weights, means, log_scales, needs)
    backends.compiled().gaussian_mixture_log_prob_backward(grad, log_prob, remainder, x, log_weights, means, log_scales, *room)
    return room


def _backward_fake(
    grad: Tensor,
    log_prob: Tensor,
    remainder: Tensor,
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    log_scales: Tensor,
    needs: Sequence[bool],
) -> _Four:
    return room_for(needs, x, log_weights, means, log_scales)  # type: ignore[return-value]


_call = register(
    "gaussian_mixture_log_prob(Tensor x, Tensor log_weights, Tensor means, Tensor log_scales) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "gaussian_mixture_log_prob_backward(Tensor grad, Tensor log_prob, Tensor remainder, Tensor x, Tensor log_weights,"
    " Tensor means, Tensor log_scales, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


class _GaussianMixtureLogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
        return _call(x, _log_weights(weight_logits), means, log_scales)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        x, weight_logits, *others, log_prob, remainder = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if grad is None:
            return (None,) * 4
        if twice_differentiable():
            inputs = x, weight_logits, *others
            return tuple(differentiable(reference.gaussian_mixture_log_prob, inputs, needs, (grad,)))
        log_weights = _log_weights(weight_logits)
        of_x, of_weights, *of_others = _call_backward(grad, log_prob, remainder, x, log_weights, *others, needs)
        if needs[1]:
            of_logits = torch.addcmul(of_weights, log_weights.exp(), of_weights.sum(-1, keepdim=True), value=-1)
            of_weights = of_logits.to(weight_logits.dtype)
        return tuple(wanted((of_x, of_weights, *of_others), needs))


def _log_weights(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1, dtype=accumulator(logits.dtype))


def gaussian_mixture_log_prob(x: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """log sum_k w_k N(x; means_k, e^log_scales_k), w = softmax(weight_logits), each component a product over the last axis.

    With components that all rows share nothing of the size rows x K x D is made, forward or backward: the same call fits a
    mixture, is a prior, and estimates a density from 10^5 points. Distances are sums of squared differences.

    Args:
        x: (..., D), floating; any strides, any number of rows.
        weight_logits: (K,) or (..., K), of x's dtype and device; any strides.
        means: (K, D), or (..., K, D) with x's batch or one that broadcasts to it.
        log_scales: of means' shape, or with a last axis of 1: one scale for all features of a component.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32. Under autocast half inputs are computed in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    plain = backends.plain(x, weight_logits, means, log_scales)
    if not plain:
        x, weight_logits, means, log_scales = _check.upcast(x, weight_logits, means, log_scales)  # type: ignore[assignment]
        _validate(x, weight_logits, means, log_scales)
    _validate_shapes(x, weight_logits, means, log_scales)
    if not plain and backends.choose("gaussian_mixture_log_prob", x, weight_logits, means, log_scales).backend == "reference":
        return reference.gaussian_mixture_log_prob(x, weight_logits, means, log_scales)
    batch = x.shape[:-1]
    log_scales = log_scales if log_scales.shape == means.shape else log_scales.expand(means.shape)
    if means.dim() > 2:
        # Rows with components of their own: as many parameters as distances.
        each = x[..., None, :].expand(*batch, *means.shape[-2:])
        density = gaussian_log_prob(each, means, log_scales)
        return (_log_weights(weight_logits) + density).logsumexp(-1)
    if weight_logits.dim() > 1:
        weight_logits = weight_logits.expand(*batch, -1).reshape(-1, weight_logits.shape[-1])
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    log_prob, _ = apply(_GaussianMixtureLogProb, rows, weight_logits, means, log_scales)
    return log_prob if x.dim() == 2 else log_prob.view(batch)


def _validate(x: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor) -> None:
    _check.floating(x, "x")
    for t, name in ((weight_logits, "weight_logits"), (means, "means"), (log_scales, "log_scales")):
        _check.like(t, name, x, "x")


def _validate_shapes(x: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor) -> None:
    _check.features(x, "x")
    if means.dim() < 2 or means.shape[-2] == 0 or means.shape[-1] != x.shape[-1]:
        raise ValueError(f"means: expected shape (..., at least 1, {x.shape[-1]}), found {tuple(means.shape)}")
    _check.features(weight_logits, "weight_logits", means.shape[-2])
    if log_scales.shape != means.shape and log_scales.shape != (*means.shape[:-1], 1):
        raise ValueError(
            f"log_scales: expected means' shape {tuple(means.shape)}, or with a last axis of 1, found {tuple(log_scales.shape)}"
        )
    if weight_logits.dim() > 1:
        _check.batch_broadcastable(weight_logits, "weight_logits", x.shape[:-1])
    if means.dim() > 2:
        _check.batch_broadcastable(means[..., 0], "means", x.shape[:-1])
