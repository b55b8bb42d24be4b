"""A whole masked network as one operation: one call forward, one backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import MaskedNetwork
from . import _check
from ._library import apply, differentiable, empty_rows, needs_gradients, register, twice_differentiable, wanted
from ._plan import NetworkPlan, make_network_plan
from .masked_linear import rows


class Spec(NamedTuple):
    """What a kernel is told of a network beside its plan: per layer the activation and the residual source (-1: none)."""

    activations: list[str]
    residuals: list[int]
    direct: bool


def spec_of(network: MaskedNetwork) -> Spec:
    residuals = [-1 if layer.residual is None else layer.residual for layer in network.layers]
    return Spec([layer.activation for layer in network.layers], residuals, network.direct)


def saved_size(x: Tensor, params: Sequence[Tensor | None], activations: Sequence[str]) -> int:
    """What a backward pass needs: per row and hidden unit its output, or its sum where the derivative is taken from that."""
    return x.shape[0] * sum(w.shape[0] for w in params[: 2 * len(activations) - 2 : 2] if w is not None)


def _out_features(params: Sequence[Tensor | None], activations: Sequence[str]) -> int:
    last = params[2 * len(activations) - 2]
    assert last is not None
    return last.shape[0]


def _forward(
    x: Tensor,
    params: Sequence[Tensor | None],
    context_terms: Tensor | None,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_mlp")
        return kernel.forward(x, params, context_terms, plan, activations, residuals, direct, save)
    y, saved = _forward_fake(x, params, context_terms, plan, activations, residuals, direct, save)
    backends.compiled().masked_mlp_forward(
        x, params, context_terms, plan, activations, residuals, direct, y, saved if save else None
    )
    return y, saved


def _forward_fake(
    x: Tensor,
    params: Sequence[Tensor | None],
    context_terms: Tensor | None,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(x.shape[0], _out_features(params, activations))
    return y, x.new_empty(saved_size(x, params, activations) if save else 0)


def _backward(
    grad: Tensor,
    x: Tensor,
    params: Sequence[Tensor | None],
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_mlp")
        return kernel.backward(grad, x, params, saved, plan, activations, residuals, direct, needs)
    gx, gc, gparams = gradient_room(x, params, needs)
    of_x, of_context, *of_params = wanted((gx, gc, *gparams), needs)
    backends.compiled().masked_mlp_backward(
        grad, x, params, saved, plan, activations, residuals, direct, of_x, of_context, of_params
    )
    return gx, gc, gparams


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    params: Sequence[Tensor | None],
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    return gradient_room(x, params, needs)


def gradient_room(x: Tensor, params: Sequence[Tensor | None], needs: Sequence[bool]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Room for the gradients of x, of the context's terms and of every parameter; no elements where one is not needed."""
    first = params[0]
    assert first is not None
    gx = empty_rows(x) if needs[0] else x.new_empty(0)
    gc = x.new_empty((x.shape[0], first.shape[0]) if needs[1] else 0)
    # They are contiguous, and made alike in a third of the time that their shapes take.
    return (
        gx,
        gc,
        [torch.empty_like(p) if n and p is not None else x.new_empty(0) for p, n in zip(params, needs[2:], strict=True)],
    )


evaluate = register(
    "masked_mlp(Tensor x, Tensor?[] params, Tensor? context_terms, Tensor?[] plan, str[] activations, int[] residuals,"
    " bool direct, bool save) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "masked_mlp_backward(Tensor grad, Tensor x, Tensor?[] params, Tensor saved, Tensor?[] plan, str[] activations,"
    " int[] residuals, bool direct, bool[] needs) -> (Tensor, Tensor, Tensor[])",
    _backward,
    _backward_fake,
)


class _MaskedMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        plan: list[Tensor | None],
        spec: Spec,
        definition: Callable,
        x: Tensor,
        context_terms: Tensor | None,
        *params: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return evaluate(x, params, context_terms, plan, *spec, True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.plan, ctx.spec, ctx.definition, x, context_terms, *params = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # or a gradient as large as what was saved would be made for it
        ctx.save_for_backward(x, context_terms, output[1], *params)

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        x, context_terms, saved, *params = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        if twice_differentiable():
            grads = differentiable(ctx.definition, (x, context_terms, *params), needs, (grad,))
            return (None, None, None, *grads)
        gx, gc, gparams = _call_backward(rows(grad), x, params, saved, ctx.plan, *ctx.spec, needs)
        return (None, None, None, *wanted((gx, gc, *gparams), needs))


def masked_mlp(
    x: Tensor,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    *,
    context_terms: Tensor | None = None,
    plan: NetworkPlan | None = None,
) -> Tensor:
    """All masked layers, activations, residual and direct connections of a MADE network, in one call.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation". Without gradients nothing is kept.

    Args:
        x: (..., D), floating; any strides, any number of rows.
        network: the description of the network.
        params: its parameters as a flat list of x's dtype and device, see `MaskedNetwork`.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.
        plan: what `make_network_plan` made of the network for x's device; without it this call makes one.

    Returns:
        (..., D', P) with P = `network.outputs` and D' P the last layer's width, of x's dtype (under autocast of its dtype).

    Raises:
        TypeError, ValueError: a dtype, device, shape or number of parameters that does not fit.
    """
    validate(x, network, params, context_terms)
    dtype = _check.autocast_dtype(x)
    if dtype is not None:
        x, context_terms = x.to(dtype), None if context_terms is None else context_terms.to(dtype)
        params = [p if p is None else p.to(dtype) for p in params]
    if backends.choose("masked_mlp", x, context_terms, *params).backend == "reference":
        return reference.masked_mlp(x, network, params, context_terms=context_terms)
    if plan is None:
        plan = make_network_plan(network, x.device)
    flat_plan = [t for layer in plan for t in layer]
    x2 = rows(x)
    if context_terms is not None:
        context_terms = rows(context_terms.expand(*x.shape[:-1], context_terms.shape[-1]))
    params = [p if p is None else p.contiguous() for p in params]
    spec = spec_of(network)
    if needs_gradients(x2, context_terms, *params):

        def definition(x: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> Tensor:
            return reference.masked_mlp(x, network, params, context_terms=context_terms).flatten(-2)

        y, _ = apply(_MaskedMLP, flat_plan, spec, definition, x2, context_terms, *params)
    else:
        y, _ = evaluate(x2, params, context_terms, flat_plan, *spec, False)
    return y.view(*x.shape[:-1], y.shape[1] // network.outputs, network.outputs)


def validate(
    x: Tensor, network: MaskedNetwork, params: Sequence[Tensor | None], context_terms: Tensor | None, name: str = "x"
) -> None:
    """Raises TypeError or ValueError unless rows `x`, called `name`, and parameters fit the network."""
    _check.floating(x, name)
    _check.features(x, name, network.features)
    validate_parameters(x, name, network, params, context_terms, x.shape[:-1])


def validate_parameters(
    x: Tensor,
    name: str,
    network: MaskedNetwork,
    params: Sequence[Tensor | None],
    context_terms: Tensor | None,
    batch: tuple[int, ...],
) -> None:
    """Raises TypeError or ValueError unless all fit the network, the dtype and device of `x`, called `name`, and the batch."""
    if len(params) != network.parameter_count:
        raise ValueError(f"params: expected {network.parameter_count} tensors, found {len(params)}")
    dtype, device = x.dtype, x.device
    for i, (p, shape) in enumerate(zip(params, network.parameter_shapes, strict=True)):
        if p is None and i % 2:
            continue
        # Asked here first: a call that says what is wrong costs more than the question.
        if isinstance(p, Tensor) and p.dtype == dtype and p.device == device and p.shape == shape:
            continue
        _check.like(p, f"params[{i}]", x, name)  # type: ignore[arg-type]
        _check.shape(p, f"params[{i}]", shape)  # type: ignore[arg-type]
    if context_terms is not None:
        validate_context_terms(x, name, network, context_terms, batch)


def validate_context_terms(x: Tensor, name: str, network: MaskedNetwork, context_terms: Tensor, batch: tuple[int, ...]) -> None:
    """Raises TypeError or ValueError unless a context's terms fit the network, the dtype and device of `x`, and the batch."""
    _check.like(context_terms, "context_terms", x, name)
    _check.features(context_terms, "context_terms", network.parameter_shapes[0][0])
    _check.batch_broadcastable(context_terms, "context_terms", batch)
