"""Affine transforms of masked networks and the permutations between them, as one node of the graph and one call each way.

A node apart for the weights that are sorted, for each transform and for each permutation costs more Python and autograd than
small networks have to compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import backends, reference
from ..ops import AutoregressiveBlock, MaskedNetwork, NetworkPlan, ScaleMap, make_network_plan, masked_autoregressive
from ..ops._library import differentiable, needs_gradients, twice_differentiable
from ..ops._stack import _call_backward, call, prepare
from .accelerated import version
from .sorted import Order, Taken

if TYPE_CHECKING:
    from .network import Arranged

Tensors = Sequence[Tensor | None]


class Block(NamedTuple):
    """y = s x + t with s and t from a network."""

    arranged: Arranged
    scale_map: ScaleMap


class Permutation(NamedTuple):
    """y = x[:, columns]."""

    columns: Tensor


Step = Block | Permutation


class Part(NamedTuple):
    """A step with its tensors in the order of the library: of a block the context terms (B, H) or None, and the parameters."""

    step: Step
    tensors: Tensors = ()


class Stack(NamedTuple):
    """What a chain of steps needs beside its tensors, which are the context terms of all blocks, then all their parameters.

    Permutations are moved behind the blocks, whose networks see the features where they lay at first.

    plan, described: of all blocks, as a kernel takes them.
    order: what the tensors are brought into.
    last: the columns of the result; None for all as they lie.
    """

    steps: Sequence[Step]
    blocks: int
    plan: Sequence[Tensor | None]
    described: Sequence[Any]
    order: Order
    last: Tensor | None


# By what their steps are, which are kept so that nothing else takes an address in the key.
_stacks: dict[tuple[Any, ...], tuple[Sequence[Step], Stack | None]] = {}
STACKS = 256


def stack_of(steps: Sequence[Step], device: torch.device) -> Stack | None:
    """What was made of these steps once; None where columns are no permutation."""
    key = tuple([(id(s.arranged), s.scale_map) if isinstance(s, Block) else (id(s.columns), version(s.columns)) for s in steps])
    if key not in _stacks:
        if len(_stacks) >= STACKS:
            _stacks.clear()
        _stacks[key] = steps, _make_stack(steps, device)
    return _stacks[key][1]


def one_node(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, Tensor] | None:
    """y (B, D) of rows x, one part after the other, at least one of them a block, and the sum of all log s.

    None where no gradients are wanted, or the kernels cannot take it: a compiler's, or several blocks on another device.
    """
    tensors = _tensors(parts)
    if x.dim() != 2 or torch.compiler.is_compiling() or x.is_neg() or not needs_gradients(x, *tensors):
        return None
    backend = backends.choose("masked_autoregressive", x, *tensors).backend
    if backend == "reference" or (backend != "cpu" and len(parts) > 1):
        return None
    stack = stack_of([part.step for part in parts], x.device)
    if stack is None:
        return None
    y, log_det = _Chain.apply(stack, x, *tensors)
    return y, log_det.to(x.dtype)


def one_by_one(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """The same, an operation for each part."""
    y, log_det = _one_by_one(_planned, [part.step for part in parts], x, *_tensors(parts))
    return y, log_det.to(x.dtype)


def _tensors(parts: Sequence[Part]) -> list[Tensor | None]:
    own = [part.tensors for part in parts if part.tensors]
    return [*(terms for terms, *_ in own), *(p for _, *params in own for p in params)]


class _Chain(torch.autograd.Function):
    # Without a `setup_context`, for the sake of which every call's signature would be inspected.
    @staticmethod
    def forward(ctx, stack: Stack, x: Tensor, *tensors: Tensor | None):  # type: ignore[no-untyped-def]
        taken = stack.order.taken(tensors)
        contexts, params = _given(stack, tensors, taken)
        y, log_det, saved = call(x, params, contexts, None, stack.plan, *stack.described, True, False)
        ctx.stack = stack
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, saved, *tensors, *taken)
        return y if stack.last is None else y.index_select(1, stack.last), log_det

    @staticmethod
    def backward(ctx, grad, grad_log_det):  # type: ignore[no-untyped-def]
        stack, needs = ctx.stack, ctx.needs_input_grad[1:]
        if grad is None and grad_log_det is None:
            return (None,) * (1 + len(needs))
        x, saved, *both = ctx.saved_tensors
        tensors, taken = both[: len(needs) - 1], both[len(needs) - 1 :]
        if twice_differentiable():

            def definition(x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
                return _one_by_one(_defined, stack.steps, x, *tensors)

            return None, *differentiable(definition, (x, *tensors), needs, (grad, grad_log_det))
        if grad is not None and stack.last is not None:
            grad = torch.empty_like(grad).index_copy_(1, stack.last, grad)
        _, params = _given(stack, tensors, taken)
        made = iter(_call_backward(grad, grad_log_det, x, params, saved, stack.plan, *stack.described, needs, False))
        of_x, *grads = [next(made) if needed else None for needed in needs]
        return None, of_x, *stack.order.put_back(grads)


def _given(stack: Stack, tensors: Tensors, taken: Tensors) -> tuple[Tensors, Tensors]:
    """The terms of all contexts and the parameters, as kernels take them."""
    found = stack.order.replaced(tensors, taken)
    params = [p if p is None or p.is_contiguous() else p.contiguous() for p in found[stack.blocks :]]
    return found[: stack.blocks], params


def _make_stack(steps: Sequence[Step], device: torch.device) -> Stack | None:
    blocks = [step for step in steps if isinstance(step, Block)]
    features = blocks[0].arranged.network.features
    # Of each feature as the library has it now, where it lay at first.
    places = torch.arange(features)
    moved: list[tuple[MaskedNetwork, NetworkPlan]] = []
    there: list[Taken] = []
    at = len(blocks)
    for step in steps:
        if isinstance(step, Permutation):
            columns = step.columns.cpu()
            if not torch.equal(columns.sort().values, torch.arange(features)):
                return None
            places = places[columns]
            continue
        network, plan, order = _moved(step.arranged, places.argsort(), device)
        there += [Taken(len(moved), None, order.units), *(taken._replace(place=at + taken.place) for taken in order.there)]
        moved.append((network, plan))
        at += network.parameter_count
    described = [AutoregressiveBlock(n, (), "divide", b.scale_map) for (n, _), b in zip(moved, blocks, strict=True)]
    last = None if torch.equal(places, torch.arange(features)) else places.to(device)
    return Stack(steps, len(blocks), *prepare(described, [plan for _, plan in moved]), Order.taking(there), last)


def _moved(arranged: Arranged, columns: Tensor, device: torch.device) -> tuple[MaskedNetwork, NetworkPlan, Order]:
    """A network of two outputs for each feature with its features in another order."""
    network, plan, _, order = arranged
    if torch.equal(columns, torch.arange(len(columns))):
        return network, plan, order
    rows = (2 * columns[:, None] + torch.arange(2)).flatten()
    layers = list(network.layers)
    layers[0] = dataclasses.replace(layers[0], in_degrees=tuple(layers[0].in_degrees[i] for i in columns))
    layers[-1] = dataclasses.replace(layers[-1], out_degrees=tuple(layers[-1].out_degrees[i] for i in rows))
    network = dataclasses.replace(network, layers=tuple(layers))
    order = order.with_ends(len(layers) - 1, network.direct, rows=rows.to(device), columns=columns.to(device))
    return network, make_network_plan(network, device), order


def _one_by_one(
    operation: Callable[..., tuple[Tensor, Tensor]], steps: Sequence[Step], x: Tensor, *tensors: Tensor | None
) -> tuple[Tensor, Tensor]:
    log_det, at = None, sum(isinstance(step, Block) for step in steps)
    contexts = iter(tensors[:at])
    for step in steps:
        if isinstance(step, Permutation):
            x = x.index_select(1, step.columns)
            continue
        order, terms, end = step.arranged.pairs, next(contexts), at + step.arranged.network.parameter_count
        terms = None if terms is None else order.of_units(terms)
        options = {"form": "divide", "scale_map": step.scale_map, "context_terms": terms, "log_det": log_det}
        x, log_det = operation(x, step.arranged, order.of(tensors[at:end]), **options)
        at = end
    assert log_det is not None
    return x, log_det


def _planned(x: Tensor, arranged: Arranged, params: Tensors, **options: Any) -> tuple[Tensor, Tensor]:
    return masked_autoregressive(x, arranged.network, params, plan=arranged.plan, **options)


def _defined(x: Tensor, arranged: Arranged, params: Tensors, **options: Any) -> tuple[Tensor, Tensor]:
    return reference.masked_autoregressive(x, arranged.network, params, **options)
