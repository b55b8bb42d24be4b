"""A whole masked network as one operation: one call forward, one backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import MaskedNetwork
from . import _check
from ._library import apply, chosen, differentiable, needs_gradients, register, spread, twice_differentiable
from ._network import Tensors, compiled_plan, gradient_room, prepare
from ._plan import NetworkPlan
from .masked_linear import rows


def _forward(
    x: Tensor,
    params: Tensors,
    context_terms: Tensor | None,
    plan: Tensors,
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    outputs: int,
    save: bool,
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_mlp")
        y, saved = kernel.forward(x, params, context_terms, plan, activations, residuals, direct, save)
        return y.view(y.shape[0], y.shape[1] // outputs, outputs), saved
    y, saved = _forward_fake(x, params, context_terms, plan, activations, residuals, direct, outputs, save)
    network = compiled_plan(plan, activations, residuals, direct)
    backends.compiled().masked_mlp_forward(x, params, context_terms, network, y, saved if save else None)
    return y, saved


def _forward_fake(
    x: Tensor,
    params: Tensors,
    context_terms: Tensor | None,
    plan: Tensors,
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    outputs: int,
    save: bool,
) -> tuple[Tensor, Tensor]:
    # The widths of the layers, as their plans have them.
    *hidden, last = [prefix.shape[0] for prefix in plan[2 : 4 * len(activations) : 4] if prefix is not None]
    y = x.new_empty(x.shape[0], last // outputs, outputs)
    # What a backward pass needs: per row and hidden unit its output, or its sum where the derivative is taken from that.
    return y, x.new_empty(x.shape[0] * sum(hidden) if save else 0)


def _backward(
    grad: Tensor,
    x: Tensor,
    params: Tensors,
    saved: Tensor,
    plan: Tensors,
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_mlp")
        gx, gc, gparams = kernel.backward(rows(grad.flatten(1)), x, params, saved, plan, activations, residuals, direct, needs)
        return chosen((gx, gc, *gparams), needs)
    if not grad.is_contiguous():
        grad = rows(grad.flatten(1))
    grads = gradient_room(x, params, needs)
    of_x, of_context, *of_params = spread(grads, needs)
    network = compiled_plan(plan, activations, residuals, direct)
    backends.compiled().masked_mlp_backward(grad, x, params, saved, network, of_x, of_context, of_params)
    return grads


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    params: Tensors,
    saved: Tensor,
    plan: Tensors,
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    return gradient_room(x, params, needs)


_NETWORK = "Tensor?[] plan, str[] activations, int[] residuals, bool direct"
evaluate = register(
    f"masked_mlp(Tensor x, Tensor?[] params, Tensor? context_terms, {_NETWORK}, int outputs, bool save) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    f"masked_mlp_backward(Tensor grad, Tensor x, Tensor?[] params, Tensor saved, {_NETWORK}, bool[] needs) -> Tensor[]",
    _backward,
    _backward_fake,
)


class _MaskedMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        described: tuple,
        definition: Callable,
        x: Tensor,
        context_terms: Tensor | None,
        *params: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return evaluate(x, params, context_terms, *described, True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        (*ctx.described, _), ctx.definition, x, context_terms, *params = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # or a gradient as large as what was saved would be made for it
        ctx.save_for_backward(x, context_terms, output[1], *params)

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[no-untyped-def]
        x, context_terms, saved, *params = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        if twice_differentiable():
            grads = differentiable(ctx.definition, (x, context_terms, *params), needs, (grad,))
            return None, None, *grads
        return None, None, *spread(_call_backward(grad, x, params, saved, *ctx.described, needs), needs)


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
    validate_rows(x, "x", network, context_terms)
    dtype = _check.autocast_dtype(x)
    if dtype is not None:
        validate_parameters(x, "x", network, params)
        x, context_terms = x.to(dtype), None if context_terms is None else context_terms.to(dtype)
        params = [p if p is None else p.to(dtype) for p in params]
    backend = backends.choose("masked_mlp", x, context_terms, *params).backend
    if backend == "cpu" and not torch.compiler.is_compiling():
        try:
            return _call(x, network, params, context_terms, plan)
        except (TypeError, ValueError):
            # The kernels check parameters themselves; this says which one does not fit.
            validate_parameters(x, "x", network, params)
            raise
    validate_parameters(x, "x", network, params)
    if backend == "reference":
        return reference.masked_mlp(x, network, params, context_terms=context_terms)
    return _call(x, network, params, context_terms, plan)


def _call(x: Tensor, network: MaskedNetwork, params: Tensors, context_terms: Tensor | None, plan: NetworkPlan | None) -> Tensor:
    flat_plan, spec = prepare(network, plan, x.device)
    x2 = rows(x)
    if context_terms is not None:
        context_terms = rows(context_terms.expand(*x.shape[:-1], context_terms.shape[-1]))
    params = [p if p is None else p.contiguous() for p in params]
    described = flat_plan, *spec, network.outputs
    if needs_gradients(x2, context_terms, *params):

        def definition(x: Tensor, context_terms: Tensor | None, *params: Tensor | None) -> Tensor:
            return reference.masked_mlp(x, network, params, context_terms=context_terms)

        y, _ = apply(_MaskedMLP, described, definition, x2, context_terms, *params)
    else:
        y, _ = evaluate(x2, params, context_terms, *described, False)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], *y.shape[1:])


def validate(
    x: Tensor, network: MaskedNetwork, params: Sequence[Tensor | None], context_terms: Tensor | None, name: str = "x"
) -> None:
    """Raises TypeError or ValueError unless rows `x`, called `name`, and parameters fit the network."""
    validate_rows(x, name, network, context_terms)
    validate_parameters(x, name, network, params)


def validate_rows(x: Tensor, name: str, network: MaskedNetwork, context_terms: Tensor | None) -> None:
    """The part of `validate` that the C++ kernels leave to be checked: what is no parameter."""
    _check.floating(x, name)
    _check.features(x, name, network.features)
    if context_terms is not None:
        validate_context_terms(x, name, network, context_terms, x.shape[:-1])


def validate_parameters(x: Tensor, name: str, network: MaskedNetwork, params: Sequence[Tensor | None]) -> None:
    """Raises TypeError or ValueError unless all fit the network, and the dtype and device of `x`, called `name`."""
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


def validate_context_terms(x: Tensor, name: str, network: MaskedNetwork, context_terms: Tensor, batch: tuple[int, ...]) -> None:
    """Raises TypeError or ValueError unless a context's terms fit the network, the dtype and device of `x`, and the batch."""
    _check.like(context_terms, "context_terms", x, name)
    _check.features(context_terms, "context_terms", network.parameter_shapes[0][0])
    _check.batch_broadcastable(context_terms, "context_terms", batch)
