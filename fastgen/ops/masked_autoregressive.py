"""A block of a masked autoregressive flow as one operation: network, affine map and log_det in one call each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import MaskedNetwork, ScaleMap
from ..reference.autoregressive_inverse import FORMS
from . import _check
from ._autoregressive import check_autoregressive
from ._library import apply, differentiable, empty_rows, needs_gradients, per_row, register, twice_differentiable, wanted
from ._plan import NetworkPlan, make_network_plan
from .affine_autoregressive import affine_autoregressive
from .autoregressive_inverse import Params, Univariate
from .gaussian_log_prob import gaussian_log_prob
from .masked_linear import rows
from .masked_mlp import gradient_room, masked_mlp, saved_size, spec_of, validate

# `described`: what `Spec` and `Univariate` hold, then `save` or `needs`, and `log_prob`, as the schemas below list them. With
# `log_prob` z is standard normal and the log-density of x the result.


def _forward(
    x: Tensor,
    params: Params,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: Params,
    *described: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_autoregressive")
        return kernel.forward(x, params, context_terms, log_det, plan, *described)
    z, total, saved = _forward_fake(x, params, context_terms, log_det, plan, *described)
    *network_and_map, save, log_prob = described
    outputs = None if log_prob else z, total, saved if save else None
    backends.compiled().masked_autoregressive_forward(x, params, context_terms, log_det, plan, *network_and_map, *outputs)
    return z, total, saved


def _forward_fake(
    x: Tensor,
    params: Params,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: Params,
    activations: Sequence[str],
    *described: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    *_, save, log_prob = described
    z = x.new_empty(0) if log_prob else empty_rows(x)
    # Of the hidden units, then the network's outputs.
    kept = saved_size(x, params, activations) + 2 * x.numel() if save else 0
    return z, per_row(x), x.new_empty(kept)


def _backward(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Params,
    saved: Tensor,
    plan: Params,
    *described: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_autoregressive")
        return kernel.backward(grad_z, grad_total, x, params, saved, plan, *described)
    *network_and_map, needs, log_prob = described
    gx, gc, gparams = gradient_room(x, params, needs)
    of_x, of_context, *of_params = wanted((gx, gc, *gparams), needs)
    backends.compiled().masked_autoregressive_backward(
        grad_z, grad_total, x, params, saved, plan, *network_and_map, log_prob, of_x, of_context, of_params
    )
    return gx, gc, gparams


def _backward_fake(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Params,
    saved: Tensor,
    plan: Params,
    *described: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    *_, needs, _ = described
    return gradient_room(x, params, needs)


_NETWORK = "Tensor?[] plan, str[] activations, int[] residuals, bool direct, bool divide, int kind, float first, float second"
_call = register(
    f"masked_autoregressive(Tensor x, Tensor?[] params, Tensor? context_terms, Tensor? log_det, {_NETWORK}, bool save,"
    " bool log_prob) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "masked_autoregressive_backward(Tensor? grad_z, Tensor? grad_total, Tensor x, Tensor?[] params, Tensor saved,"
    f" {_NETWORK}, bool[] needs, bool log_prob) -> (Tensor, Tensor, Tensor[])",
    _backward,
    _backward_fake,
)


class _MaskedAutoregressive(torch.autograd.Function):
    @staticmethod
    def forward(
        plan: list[Tensor | None],
        described: tuple[Any, ...],
        log_prob: bool,
        definition: Callable,
        x: Tensor,
        context_terms: Tensor | None,
        log_det: Tensor | None,
        *params: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _call(x, params, context_terms, log_det, plan, *described, True, log_prob)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.plan, ctx.described, ctx.log_prob, ctx.definition, x, context_terms, _, *params = inputs
        z, _, saved = output
        ctx.mark_non_differentiable(*((z, saved) if ctx.log_prob else (saved,)))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, context_terms, saved, *params)

    @staticmethod
    def backward(ctx, grad_z, grad_total, _):  # type: ignore[no-untyped-def]
        x, context_terms, saved, *params = ctx.saved_tensors
        of_x, of_context, of_log_det, *of_params = ctx.needs_input_grad[4:]
        needs = [of_x, of_context, *of_params]
        passed = grad_total if of_log_det else None
        if ctx.log_prob:
            grad_z = None  # a compiler makes one up
        if not any(needs) or (grad_z is None and grad_total is None):
            return None, None, None, None, None, None, passed, *(None for _ in params)
        if twice_differentiable():
            incoming = (grad_total,) if ctx.log_prob else (grad_z, grad_total)
            grads = differentiable(ctx.definition, (x, context_terms, *params), needs, incoming)
        else:
            gx, gc, gparams = _call_backward(
                grad_z, grad_total, x, params, saved, ctx.plan, *ctx.described, needs, ctx.log_prob
            )
            grads = wanted((gx, gc, *gparams), needs)
        return None, None, None, None, *grads[:2], passed, *grads[2:]


def masked_autoregressive(
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """z_i = (x_i - mu_i) e^-s_i ("multiply") or z_i = x_i e^s_i + mu_i ("divide"), mu and s of x_<i, and the log_det.

    What `autoregressive_inverse` of the same form undoes: a block of a flow in the direction its network reads. Papamakarios
    et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4 ("multiply"); Kingma et al. 2016,
    "Improving Variational Inference with Inverse Autoregressive Flow", equation 10 ("divide"). Network, map and sum are one
    call: shift and log-scale are not stored for the batch unless gradients need them.

    Args:
        x: (..., D), floating; any strides, any number of rows.
        network: a masked network of two outputs per feature, shift mu and raw log-scale, that sees features of lower degree
            only.
        params: its parameters as a flat list of x's dtype and device, see `MaskedNetwork`.
        form: "multiply" or "divide", that of the inverse.
        scale_map: from the raw log-scale to s.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        log_det: (...,), read and added to the result, of the result's dtype.
        plan: what `make_network_plan` made of the network for x's device; without it this call makes one.

    Returns:
        z (..., D) of x's dtype, and log|det dz/dx| (...,) in nats: - or + the sum of s; float64 for float64 inputs, else
        float32. Under autocast the network computes in its dtype, the map in that of x, a half one in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape, form or network that does not fit.
    """
    return _block(False, x, network, params, form, scale_map, context_terms, log_det, plan)


def masked_autoregressive_log_prob(
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> Tensor:
    """The log-density (...,) in nats of x where the z of `masked_autoregressive` is standard normal, `log_det` added.

    The last block of a flow in one call, which forms no z. Arguments, dtypes and errors: those of `masked_autoregressive`.
    """
    return _block(True, x, network, params, form, scale_map, context_terms, log_det, plan)[1]


def _block(
    log_prob: bool,
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    form: str,
    scale_map: ScaleMap,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: NetworkPlan | None,
) -> tuple[Tensor, Tensor]:
    """z, not to be read where the log-density is wanted, and the log_det or that log-density."""
    _validate(x, network, params, form, context_terms, log_det)
    name = "masked_autoregressive_log_prob" if log_prob else "masked_autoregressive"
    if _check.autocast_dtype(x) is not None:
        return _by_parts(log_prob, x, network, params, form, scale_map, context_terms, log_det, plan)
    if backends.choose(name, x, context_terms, log_det, *params).backend == "reference":
        total = getattr(reference, name)(
            x, network, params, form=form, scale_map=scale_map, context_terms=context_terms, log_det=log_det
        )
        return (x, total) if log_prob else total
    if plan is None:
        plan = make_network_plan(network, x.device)
    flat_plan = [t for layer in plan for t in layer]
    x2 = rows(x)
    if context_terms is not None:
        context_terms = rows(context_terms.expand(*x.shape[:-1], context_terms.shape[-1]))
    shaped = x.dim() != 2
    if shaped and log_det is not None:
        log_det = log_det.reshape(-1)
    params = [p if p is None else p.contiguous() for p in params]
    described = (*spec_of(network), *Univariate(form == "divide", *scale_map.code))
    if needs_gradients(x2, context_terms, log_det, *params):

        def definition(x: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> object:
            function = getattr(reference, name)
            return function(x, network, params, form=form, scale_map=scale_map, context_terms=context_terms)

        given = (flat_plan, described, log_prob, definition, x2, context_terms, log_det, *params)
        z, total, _ = apply(_MaskedAutoregressive, *given)
    else:
        z, total, _ = _call(x2, params, context_terms, log_det, flat_plan, *described, False, log_prob)
    if not shaped:
        return z, total
    return z if log_prob else z.view(x.shape), total.view(x.shape[:-1])


def _by_parts(
    log_prob: bool,
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    form: str,
    scale_map: ScaleMap,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: NetworkPlan | None,
) -> tuple[Tensor, Tensor]:
    """For autocast: the network in its dtype, the map in that of x."""
    shift, raw = masked_mlp(x, network, params, context_terms=context_terms, plan=plan).to(x.dtype).unbind(-1)
    z, total = affine_autoregressive(x, shift, raw, inverse=form == "divide", scale_map=scale_map, log_det=log_det)
    return z, gaussian_log_prob(z) + total if log_prob else total


def _validate(
    x: Tensor,
    network: MaskedNetwork,
    params: Params,
    form: str,
    context_terms: Tensor | None,
    log_det: Tensor | None,
) -> None:
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    validate(x, network, params, context_terms)
    check_autoregressive(network, 2)
    if log_det is not None:
        _check.per_row(log_det, "log_det", x, "x")
