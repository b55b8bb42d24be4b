"""The inverse of a masked autoregressive network as an operation, at the price of one pass of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import MaskedNetwork, ScaleMap
from ..reference.autoregressive_inverse import FORMS
from . import _autoregressive_cuda, _check
from ._autoregressive import check_autoregressive
from ._jacobi import jacobi, serves
from ._library import apply, differentiable, empty_rows, needs_gradients, per_row, register, spread, twice_differentiable
from ._network import Spec, compiled_plan, gradient_room, prepare
from ._network import Tensors as Params
from ._plan import NetworkPlan
from .masked_linear import rows
from .masked_mlp import validate_parameters, validate_rows


class Univariate(NamedTuple):
    """What a kernel is told of the map of one feature: its form, and the scale map's code."""

    divide: bool
    kind: int
    first: float
    second: float


# `plan, *described`: the flat plan, then what `Spec` and `Univariate` hold, as the schemas below list them.


def _forward(
    w: Tensor, params: Params, context_terms: Tensor | None, log_det: Tensor | None, plan: Params, *described: Any
) -> tuple[Tensor, Tensor]:
    v, total = _forward_fake(w, params, context_terms, log_det, plan, *described)
    if w.is_cuda:
        _autoregressive_cuda.forward(v, total, w, params, context_terms, log_det, plan, *described)
    else:
        network, univariate = _compiled(plan, described)
        backends.compiled().autoregressive_inverse_forward(w, params, context_terms, log_det, network, *univariate, v, total)
    return v, total


def _compiled(plan: Params, described: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The compiled module's network, and what is said of the univariate map."""
    layers = len(Spec._fields)
    return compiled_plan(plan, *described[:layers]), described[layers:]


def _forward_fake(
    w: Tensor, params: Params, context_terms: Tensor | None, log_det: Tensor | None, plan: Params, *described: Any
) -> tuple[Tensor, Tensor]:
    return empty_rows(w), per_row(w)


def _backward(
    grad_v: Tensor | None,
    grad_log_det: Tensor | None,
    w: Tensor,
    v: Tensor,
    params: Params,
    context_terms: Tensor | None,
    needs: Sequence[bool],
    plan: Params,
    *described: Any,
) -> list[Tensor]:
    given = grad_v, grad_log_det, w, v, params, context_terms, needs, plan, *described
    if w.is_cuda:
        return _autoregressive_cuda.backward(*given)
    grads = gradient_room(w, params, needs)
    of_w, of_context, *of_params = spread(grads, needs)
    network, univariate = _compiled(plan, described)
    backends.compiled().autoregressive_inverse_backward(
        grad_v, grad_log_det, w, v, params, context_terms, network, *univariate, of_w, of_context, of_params
    )
    return grads


def _backward_fake(
    grad_v: Tensor | None,
    grad_log_det: Tensor | None,
    w: Tensor,
    v: Tensor,
    params: Params,
    context_terms: Tensor | None,
    needs: Sequence[bool],
    plan: Params,
    *described: Any,
) -> list[Tensor]:
    return gradient_room(w, params, needs)


_NETWORK = "Tensor?[] plan, str[] activations, int[] residuals, bool direct, bool divide, int kind, float first, float second"
_call = register(
    f"autoregressive_inverse(Tensor w, Tensor?[] params, Tensor? context_terms, Tensor? log_det, {_NETWORK})"
    " -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "autoregressive_inverse_backward(Tensor? grad_v, Tensor? grad_log_det, Tensor w, Tensor v, Tensor?[] params,"
    f" Tensor? context_terms, bool[] needs, {_NETWORK}) -> Tensor[]",
    _backward,
    _backward_fake,
)


class _AutoregressiveInverse(torch.autograd.Function):
    @staticmethod
    def forward(
        plan: list[Tensor | None],
        described: tuple[Any, ...],
        definition: Callable,
        w: Tensor,
        context_terms: Tensor | None,
        log_det: Tensor | None,
        *params: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return _call(w, params, context_terms, log_det, plan, *described)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.plan, ctx.described, ctx.definition, w, context_terms, _, *params = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(w, context_terms, output[0], *params)

    @staticmethod
    def backward(ctx, grad_v, grad_log_det):  # type: ignore[no-untyped-def]
        w, context_terms, v, *params = ctx.saved_tensors
        of_w, of_context, of_log_det, *of_params = ctx.needs_input_grad[3:]
        needs = [of_w, of_context, *of_params]
        passed = grad_log_det if of_log_det else None
        if not any(needs) or (grad_v is None and grad_log_det is None):
            return None, None, None, None, None, passed, *(None for _ in params)
        if twice_differentiable():
            grads = differentiable(ctx.definition, (w, context_terms, *params), needs, (grad_v, grad_log_det))
        else:
            found = _call_backward(grad_v, grad_log_det, w, v, params, context_terms, needs, ctx.plan, *ctx.described)
            grads = spread(found, needs)
        return None, None, None, *grads[:2], passed, *grads[2:]


def autoregressive_inverse(
    w: Tensor,
    network: MaskedNetwork,
    params: Params,
    *,
    form: str = "multiply",
    scale_map: ScaleMap = ScaleMap(),
    context_terms: Tensor | None = None,
    log_det: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """The v that solves v_i = w_i e^s_i + mu_i ("multiply") or v_i = (w_i - mu_i) e^-s_i ("divide"), mu and s of v_<i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equation 5 ("multiply"); Kingma et al. 2016,
    "Improving Variational Inference with Inverse Autoregressive Flow", solved for its noise ("divide"). A hidden unit of
    degree d is final as soon as the first d features are known, so each is evaluated once: the inverse costs one pass of the
    network, its gradient a few.

    Args:
        w: (..., D), floating; any strides, any number of rows.
        network: a masked network of two outputs per feature, shift mu and raw log-scale, that sees features of lower degree
            only.
        params: its parameters as a flat list of w's dtype and device, see `MaskedNetwork`.
        form: "multiply" or "divide".
        scale_map: from the raw log-scale to s.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        log_det: (...,), read and added to the result, of the result's dtype.
        plan: what `make_network_plan` made of the network for w's device; without it this call makes one.

    Returns:
        v (..., D) of w's dtype, and log|det dv/dw| (...,) in nats: + or - the sum of s; float64 for float64 inputs, else
        float32. Under autocast half inputs are computed, and v returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape, form or network that does not fit.
    """
    w, context_terms, *params = _check.upcast(w, context_terms, *params)  # type: ignore[assignment]
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
    validate_rows(w, "w", network, context_terms)
    check_autoregressive(network, 2)
    backend = backends.choose("autoregressive_inverse", w, context_terms, log_det, *params).backend
    if backend == "cpu" and not torch.compiler.is_compiling():
        try:
            _validate_log_det(log_det, w)
            return _solve(w, network, params, form, scale_map, context_terms, log_det, plan)
        except (TypeError, ValueError):
            # The kernels check parameters themselves; this says which one does not fit.
            validate_parameters(w, "w", network, params)
            raise
    validate_parameters(w, "w", network, params)
    _validate_log_det(log_det, w)
    if backend == "reference":
        solve = partial(jacobi, plan=plan) if serves(w, context_terms, log_det, *params) else reference.autoregressive_inverse
        return solve(w, network, params, form=form, scale_map=scale_map, context_terms=context_terms, log_det=log_det)
    return _solve(w, network, params, form, scale_map, context_terms, log_det, plan)


def _solve(
    w: Tensor,
    network: MaskedNetwork,
    params: Params,
    form: str,
    scale_map: ScaleMap,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: NetworkPlan | None,
) -> tuple[Tensor, Tensor]:
    flat_plan, spec = prepare(network, plan, w.device)
    described = (*spec, *Univariate(form == "divide", *scale_map.code))
    w2 = w if w.dim() == 2 else w.reshape(-1, w.shape[-1])
    if context_terms is not None:
        context_terms = rows(context_terms.expand(*w.shape[:-1], context_terms.shape[-1]))
    log_det = None if log_det is None else log_det.reshape(-1)
    params = [p if p is None else p.contiguous() for p in params]
    if needs_gradients(w2, context_terms, log_det, *params):

        def definition(w: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> tuple[Tensor, Tensor]:
            return reference.autoregressive_inverse(
                w, network, params, form=form, scale_map=scale_map, context_terms=context_terms
            )

        v, total = apply(_AutoregressiveInverse, flat_plan, described, definition, w2, context_terms, log_det, *params)
    else:
        v, total = _call(w2, params, context_terms, log_det, flat_plan, *described)
    return (v, total) if w2 is w else (v.view(w.shape), total.view(w.shape[:-1]))


def _validate_log_det(log_det: Tensor | None, w: Tensor) -> None:
    if log_det is not None:
        _check.per_row(log_det, "log_det", w, "w")
