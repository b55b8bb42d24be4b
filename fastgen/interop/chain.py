"""Affine transforms of masked networks and the permutations between them, as one node of the graph.

A node apart for the weights that are sorted, for each transform and for each permutation costs more Python and autograd than
small networks have to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import backends, reference
from ..ops import ScaleMap, masked_autoregressive
from ..ops._library import differentiable, needs_gradients, twice_differentiable
from ..ops.autoregressive_inverse import Univariate
from ..ops.masked_autoregressive import _call, _call_backward

if TYPE_CHECKING:
    from .network import Arranged

Tensors = Sequence[Tensor | None]


class Block(NamedTuple):
    """y = s x + t with s and t from a network, whose tensors are the terms of its context and its parameters."""

    arranged: Arranged
    scale_map: ScaleMap

    @property
    def described(self) -> tuple[Any, ...]:
        return (*self.arranged.told, *Univariate(True, *self.scale_map.code))

    @property
    def tensors(self) -> int:
        return 1 + self.arranged.network.parameter_count


class Permutation(NamedTuple):
    """y = x[:, columns]."""

    columns: Tensor


Step = Block | Permutation


class Part(NamedTuple):
    """A step with its tensors in the order of the library: of a block the context terms (B, H) or None, and the parameters."""

    step: Step
    tensors: Tensors = ()


def takes(x: Tensor, tensors: Tensors) -> bool:
    """Whether `chain` can take the call: rows with gradients, outside compilers, on a device that kernels run on."""
    if x.dim() != 2 or torch.compiler.is_compiling() or x.is_neg() or not needs_gradients(x, *tensors):
        return False
    return backends.choose("masked_autoregressive", x, *tensors).backend != "reference"


def chain(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """y (B, D) of rows x, one part after the other, at least one of them a block, and the sum of all log s."""
    steps, tensors = [part.step for part in parts], [t for part in parts for t in part.tensors]
    if takes(x, tensors):
        y, log_det = _Chain.apply(steps, x, *tensors)
    else:
        y, log_det = _one_by_one(masked_autoregressive, steps, x, *tensors)
    return y, log_det.to(x.dtype)


def _with_tensors(steps: Sequence[Step], tensors: Tensors) -> Iterator[tuple[Step, int, Tensors]]:
    """Each step with the place of its tensors among all, and these."""
    at = 0
    for step in steps:
        end = at + step.tensors if isinstance(step, Block) else at
        yield step, at, tensors[at:end]
        at = end


class _Chain(torch.autograd.Function):
    # Without a `setup_context`, for the sake of which every call's signature would be inspected.
    @staticmethod
    def forward(ctx, steps: Sequence[Step], x: Tensor, *tensors: Tensor | None):  # type: ignore[no-untyped-def]
        y, log_det, kept = x, None, []
        for step, _, own in _with_tensors(steps, tensors):
            if isinstance(step, Permutation):
                y = y.index_select(1, step.columns)
                continue
            order, (terms, *params) = step.arranged.pairs, own
            taken = order.taken(params)
            kept += [y, *taken]
            given = y, order.replaced(params, taken), order.taken_of_units(terms), log_det, *step.described
            y, log_det, saved = _call(*given, True, False)
            kept.append(saved)
        ctx.steps = steps
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *tensors, *kept)
        return y, log_det

    @staticmethod
    def backward(ctx, grad, grad_log_det):  # type: ignore[no-untyped-def]
        _, needs_x, *needs = ctx.needs_input_grad
        if grad is None and grad_log_det is None:
            return (None,) * len(ctx.needs_input_grad)
        x, *saved = ctx.saved_tensors
        tensors, kept = saved[: len(needs)], saved[len(needs) :]
        if twice_differentiable():
            definition, needed = partial(_one_by_one, reference.masked_autoregressive, ctx.steps), (needs_x, *needs)
            return None, *differentiable(definition, (x, *tensors), needed, (grad, grad_log_det))
        grads: list[Tensor | None] = [None] * len(needs)
        for step, at, own in reversed(list(_with_tensors(ctx.steps, tensors))):
            if isinstance(step, Permutation):
                if grad is not None:
                    grad = torch.zeros_like(grad).index_add_(1, step.columns, grad)
                continue
            order, params, end = step.arranged.pairs, own[1:], at + len(own)
            saved = kept.pop()
            taken = [kept.pop() for _ in order.there][::-1]
            before = needs_x or any(needs[:at])
            given = kept.pop(), order.replaced(params, taken), saved, *step.described
            of_x, of_terms, of_params = _call_backward(grad, grad_log_det, *given, [before, *needs[at:end]], False)
            grad = of_x if before else None
            grads[at] = order.put_back_units(of_terms) if needs[at] else None
            grads[at + 1 : end] = order.put_back(of_params, needs[at + 1 : end])
        return None, grad if needs_x else None, *grads


def _one_by_one(
    operation: Callable[..., tuple[Tensor, Tensor]], steps: Sequence[Step], x: Tensor, *tensors: Tensor | None
) -> tuple[Tensor, Tensor]:
    log_det = None
    for step, _, own in _with_tensors(steps, tensors):
        if isinstance(step, Permutation):
            x = x.index_select(1, step.columns)
            continue
        order, (terms, *params) = step.arranged.pairs, own
        terms = None if terms is None else order.of_units(terms)
        options = {"form": "divide", "scale_map": step.scale_map, "context_terms": terms, "log_det": log_det}
        x, log_det = operation(x, step.arranged.network, order.of(params), **options)
    assert log_det is not None
    return x, log_det
