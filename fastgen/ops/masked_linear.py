"""The masked linear layer as an operation: validation, the registered kernels and their autograd Function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import ACTIVATIONS, activation_name
from . import _check
from ._library import apply, differentiable, needs_gradients, register, room_for, twice_differentiable, wanted
from ._plan import LinearPlan, make_plan

# Their derivative is a function of their output; the others keep the sum before them.
FROM_OUTPUT = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid")


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Sequence[Tensor | None], activation: str) -> Tensor:
    if backends.on_triton(x):
        return backends.kernels("masked_linear").forward(x, weight, bias, LinearPlan(*plan), activation)  # type: ignore[arg-type]
    y = _forward_fake(x, weight, bias, plan, activation)
    backends.compiled().masked_linear_forward(x, weight, bias, *plan, activation, y)
    return y


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Sequence[Tensor | None], activation: str) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _gradients(x: Tensor, weight: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients of x, weight and bias; None where one is not needed."""
    bias = x.new_empty(weight.shape[0]) if needs[2] else None
    return *room_for(needs[:2], x, weight), bias  # type: ignore[return-value]


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activation: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        kernel = backends.kernels("masked_linear")
        return kernel.backward(grad, x, weight, saved, LinearPlan(*plan), activation, needs)  # type: ignore[arg-type]
    room = _gradients(x, weight, needs)
    backends.compiled().masked_linear_backward(grad, x, weight, saved, *plan, activation, *room)
    return room


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activation: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(x, weight, needs)


_call = register(
    "masked_linear(Tensor x, Tensor weight, Tensor? bias, Tensor?[] plan, str activation) -> Tensor", _forward, _forward_fake
)
_call_backward = register(
    "masked_linear_backward(Tensor grad, Tensor x, Tensor weight, Tensor saved, Tensor?[] plan, str activation, bool[] needs)"
    " -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def rows(x: Tensor) -> Tensor:
    """x as a matrix of rows (..., D) -> (B, D) whose last stride is 1: a view where it can be."""
    x = x.reshape(-1, x.shape[-1]) if x.dim() != 2 else x
    # Not contiguous(), which leaves no rows at the strides they have.
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.clone(memory_format=torch.contiguous_format)


class _MaskedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, plan: LinearPlan, activation: str, definition: Callable
    ) -> Tensor:
        return _call(x, weight, bias, list(plan), activation)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        x, weight, bias, ctx.plan, ctx.activation, ctx.definition = inputs
        ctx.save_for_backward(x, weight, bias, output)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, bias, y = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        if twice_differentiable():
            return (*differentiable(ctx.definition, (x, weight, bias), needs, (grad,)), None, None, None)
        grads = _call_backward(rows(grad), x, weight, y, list(ctx.plan), ctx.activation, needs)
        return (*wanted(grads, needs), None, None, None)


def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    in_degrees: Tensor,
    out_degrees: Tensor,
    *,
    strict: bool = False,
    activation: str | None = None,
    plan: LinearPlan | None = None,
) -> Tensor:
    """y_k = act(b_k + sum_j M_kj W_kj x_j), M_kj = [in_degrees_j <= out_degrees_k], or `<` when `strict`.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", equations 12 and 13. The mask is never
    formed, nor is W * M: the kernels walk the staircase of sorted degrees.

    Args:
        x: (..., in), floating; any strides, any number of rows.
        weight: (out, in), of x's dtype and device. Entries outside the mask are not read as numbers and get zero gradient.
        bias: (out,) or None.
        in_degrees, out_degrees: int64, (in,) and (out,), on the CPU.
        strict: `<` in place of `<=`, as an output layer needs.
        activation: identity (None), relu, leaky_relu, elu, tanh, sigmoid, softplus, silu or gelu.
        plan: what `make_plan` made of the degrees for x's device; without it this call makes one.

    Returns:
        (..., out), of x's dtype (under autocast of its dtype).

    Raises:
        TypeError, ValueError: a dtype, device, shape or degree vector that does not fit.
    """
    name = activation_name(activation)
    plain = backends.plain(x, weight) if bias is None else backends.plain(x, weight, bias)
    if not plain:
        _validate(x, weight, bias)
    _validate_shapes(x, weight, bias, in_degrees, out_degrees)
    dtype = _check.autocast_dtype(x)
    if dtype is not None:
        plain = False
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if not plain and backends.choose("masked_linear", x, weight, bias).backend == "reference":
        return reference.masked_linear(x, weight, bias, in_degrees, out_degrees, strict=strict, activation=name)
    if plan is None:
        plan = make_plan(in_degrees, out_degrees, strict=strict, device=x.device)
    fused = name if name in FROM_OUTPUT else "identity"

    x2, weight = rows(x), weight.contiguous()
    if needs_gradients(x2, weight, bias):

        def definition(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return reference.masked_linear(x, weight, bias, in_degrees, out_degrees, strict=strict, activation=fused)

        y = apply(_MaskedLinear, x2, weight, bias, plan, fused, definition)
    else:
        y = _call(x2, weight, bias, list(plan), fused)
    y = y if x.dim() == 2 else y.view(*x.shape[:-1], weight.shape[0])
    return y if fused == name else ACTIVATIONS[name](y)


def _validate(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _check.floating(x, "x")
    _check.like(weight, "weight", x, "x")
    if bias is not None:
        _check.like(bias, "bias", x, "x")


def _validate_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, in_degrees: Tensor, out_degrees: Tensor) -> None:
    _check.features(x, "x")
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1] or weight.shape[0] == 0:
        raise ValueError(f"weight: expected shape (out, {x.shape[-1]}) with out >= 1, found {tuple(weight.shape)}")
    if bias is not None:
        _check.shape(bias, "bias", weight.shape[:1])
    _check.degrees(in_degrees, "in_degrees", weight.shape[1])
    _check.degrees(out_degrees, "out_degrees", weight.shape[0])
