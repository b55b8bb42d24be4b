"""A whole masked network: a chain of masked linear kernels, joined by PyTorch operations where sums are added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference import ACTIVATIONS
from . import masked_linear
from ._activations import FUSED

_aten = torch.ops.aten

# The gradient before an activation, from the one after it and what is saved: its output, or the sum before it.
_BEFORE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda grad, y: grad,
    "relu": lambda grad, y: _aten.threshold_backward(grad, y, 0),
    "leaky_relu": lambda grad, y: _aten.leaky_relu_backward(grad, y, 0.01, True),
    "elu": lambda grad, y: _aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y),
    "tanh": _aten.tanh_backward,
    "sigmoid": _aten.sigmoid_backward,
    "softplus": lambda grad, s: grad * s.sigmoid(),
    "silu": _aten.silu_backward,
    "gelu": _aten.gelu_backward,
}


def _layer_plans(plan: Sequence[Tensor | None]) -> list[Sequence[Tensor | None]]:
    """The flat plan cut into layers."""
    return [plan[i : i + 4] for i in range(0, len(plan), 4)]


def _blocks(saved: Tensor, batch: int, weights: Sequence[Any]) -> list[Tensor]:
    """What is saved of these layers, as one (B, width) view for each."""
    widths = [w.shape[0] for w in weights]
    return [t.view(batch, w) for t, w in zip(saved.split([batch * w for w in widths]), widths, strict=True)]


def _layer_input(layer: int, x: Tensor, blocks: Sequence[Tensor], activations: Sequence[str]) -> Tensor:
    """What layer reads: x, or the outputs of the layer before, made again where its sums were saved."""
    if layer == 0:
        return x
    activation, block = activations[layer - 1], blocks[layer - 1]
    return block if activation in FUSED else ACTIVATIONS[activation](block)


def forward(
    x: Tensor,
    params: Sequence[Any],
    context_terms: Tensor | None,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    save: bool,
    save_output: bool = False,
) -> tuple[Tensor, Tensor]:
    """The output (B, O) and what backward needs: per hidden layer its output, or its sum where its activation is not fused.

    `save_output`: the output is saved too, after all hidden layers.
    """
    last = len(activations) - 1
    weights, biases, plans = params[0 : 2 * last + 1 : 2], params[1 : 2 * last + 2 : 2], _layer_plans(plan)
    kept = weights if save and save_output else weights[:-1] if save else []
    saved = x.new_empty(x.shape[0] * sum(w.shape[0] for w in kept))
    blocks: list[Tensor | None] = [*_blocks(saved, x.shape[0], kept), *[None] * (last + 1 - len(kept))]
    sums: dict[int, Tensor] = {}
    h = x
    for i, (activation, residual, block) in enumerate(zip(activations, residuals, blocks, strict=True)):
        terms = []
        if i == 0 and context_terms is not None:
            terms.append(context_terms)
        if residual >= 0:
            terms.append(sums[residual])
        if i == last and direct:
            terms.append(masked_linear.forward(x, params[-1], None, plans[last + 1], "identity"))
        fused = activation in FUSED and not terms and i not in residuals
        in_place = block is not None and (fused or activation not in FUSED)
        s = masked_linear.forward(
            h, weights[i], biases[i], plans[i], activation if fused else "identity", out=block if in_place else None
        )
        for term in terms:
            s += term
        if i in residuals:
            sums[i] = s
        h = s if fused else ACTIVATIONS[activation](s)
        if block is not None and not in_place:
            block.copy_(h)
    return h, saved


def backward(
    grad: Tensor,
    x: Tensor,
    params: Sequence[Any],
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    residuals: Sequence[int],
    direct: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradients of x, of the context's terms and of every parameter; of no elements where one is not needed."""
    last = len(activations) - 1
    weights, plans = params[0 : 2 * last + 1 : 2], _layer_plans(plan)
    blocks = [*_blocks(saved, x.shape[0], weights[:-1]), grad]
    found: list[Tensor | None] = [None] * len(needs)
    if direct:
        found[0], found[-1], _ = masked_linear.backward(
            grad, x, params[-1], grad, plans[last + 1], "identity", (needs[0], needs[-1], False)
        )
    brought: dict[int, Tensor] = {}
    g: Any = grad
    for i in range(last, -1, -1):
        activation, residual = activations[i], residuals[i]
        terms_need = i == 0 and needs[1]
        fused = activation in FUSED and i not in residuals and residual < 0 and not terms_need
        if not fused:
            g = _BEFORE[activation](g, blocks[i])
            if i in brought:
                g = g + brought.pop(i)
        if residual >= 0:
            brought[residual] = brought[residual] + g if residual in brought else g
        if terms_need:
            found[1] = g.clone() if g is grad else g
        h = _layer_input(i, x, blocks, activations)
        at = 2 + 2 * i
        below = needs[0] if i == 0 else any(needs[:at])
        wanted = (below, needs[at], needs[at + 1])
        g, found[at], found[at + 1] = masked_linear.backward(
            g,
            h,
            weights[i],
            blocks[i],
            plans[i],
            activation if fused else "identity",
            wanted,
        )
        if not below:
            break
    if needs[0] and g is not None:
        found[0] = g if found[0] is None else found[0] + g
    gx, gcontext, *gparams = (x.new_empty(0) if t is None else t for t in found)
    return gx, gcontext, gparams


def parameter_gradients(
    deltas: Tensor,
    x: Tensor,
    params: Sequence[Any],
    saved: Tensor,
    plan: Sequence[Tensor | None],
    activations: Sequence[str],
    direct: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the context's terms and of every parameter, from those of all sums: layer after layer (B, width)."""
    last = len(activations) - 1
    weights, plans = params[0 : 2 * last + 1 : 2], _layer_plans(plan)
    blocks = _blocks(saved, x.shape[0], weights[:-1])
    sums = _blocks(deltas, x.shape[0], weights)
    found: list[Tensor | None] = []
    for i, (g, weight) in enumerate(zip(sums, weights, strict=True)):
        wanted = (False, *needs[1 + 2 * i : 3 + 2 * i])
        h = _layer_input(i, x, blocks, activations)
        found += masked_linear.backward(g, h, weight, g, plans[i], "identity", wanted)[1:]
    if direct:
        wanted = (False, needs[-1], False)
        found.append(masked_linear.backward(sums[-1], x, params[-1], sums[-1], plans[last + 1], "identity", wanted)[1])
    gparams = [x.new_empty(0) if t is None else t for t in found]
    return sums[0].clone() if needs[0] else x.new_empty(0), gparams
