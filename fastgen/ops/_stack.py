"""Blocks of masked autoregressive flows, one after the other: the kernels in the library, and the Function over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..reference import AutoregressiveBlock
from ..reference.autoregressive_inverse import FORMS
from ._autoregressive import check_autoregressive
from ._library import apply, differentiable, empty_rows, per_row, register, twice_differentiable
from ._plan import LinearPlan, NetworkPlan
from .autoregressive_inverse import Params

Contexts = Sequence[Tensor | None]


class Described(NamedTuple):
    """What a kernel is told of the blocks beside their plans: lists over all of them, one block after the other.

    layers: how many each block has, direct connections not counted.
    activations, residuals: of each layer, see `Spec`.
    direct: of each block, whether there are direct connections.
    divide, kind, first, second: of each block, see `Univariate`.
    """

    layers: list[int]
    activations: list[str]
    residuals: list[int]
    direct: list[bool]
    divide: list[bool]
    kind: list[int]
    first: list[float]
    second: list[float]


class FlatPlan(list):
    """The plans of all blocks as a flat list, with what the C++ kernels made of them where they have."""

    stack: Any = None


def stack_of(plan: Params, described: Sequence[Any]) -> Any:
    """The compiled module's object of the blocks, made once of a `FlatPlan`."""
    stack = plan.stack if isinstance(plan, FlatPlan) else None
    if stack is None:
        stack = backends.compiled().MaskedAutoregressiveStack(plan, *described)
        if isinstance(plan, FlatPlan):
            plan.stack = stack
    return stack


def describe(blocks: Sequence[AutoregressiveBlock]) -> Described:
    layers = [layer for block in blocks for layer in block.network.layers]
    codes = [block.scale_map.code for block in blocks]
    return Described(
        [len(block.network.layers) for block in blocks],
        [layer.activation for layer in layers],
        [-1 if layer.residual is None else layer.residual for layer in layers],
        [block.network.direct for block in blocks],
        [block.form == "divide" for block in blocks],
        *map(list, zip(*codes, strict=True)),  # type: ignore[arg-type]
    )


# Of blocks that are still there, by what they are: preparing a stack costs as much as a small call.
_prepared: dict[tuple[int, ...], tuple[FlatPlan, Described, object]] = {}
PREPARED = 256


def prepare(blocks: Sequence[AutoregressiveBlock], plans: Sequence[NetworkPlan]) -> tuple[list[Tensor | None], Described]:
    """The flat plan and the description of blocks; the same ones while networks, forms, maps and plans are the same objects.

    Raises ValueError for a form there is not, a network that is not autoregressive, and a plan of another network.
    """
    if torch.compiler.is_compiling():
        return _flat(plans), describe(blocks)
    key = tuple([id(of) for b, plan in zip(blocks, plans, strict=True) for of in (b.network, b.form, b.scale_map, plan)])
    found = _prepared.get(key)
    if found is None:
        for block, plan in zip(blocks, plans, strict=True):
            _expect_fit(block, plan)
        if len(_prepared) >= PREPARED:
            _prepared.clear()
        # Kept, so that no other object takes an address in the key.
        kept = [(b.network, b.form, b.scale_map, plan) for b, plan in zip(blocks, plans, strict=True)]
        found = _prepared[key] = FlatPlan(_flat(plans)), describe(blocks), kept
    return found[:2]


def _flat(plans: Sequence[NetworkPlan]) -> list[Tensor | None]:
    return [t for plan in plans for layer in plan for t in layer]


def _expect_fit(block: AutoregressiveBlock, plan: NetworkPlan) -> None:
    if block.form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {block.form!r}")
    check_autoregressive(block.network, 2)
    shapes = block.network.parameter_shapes
    expected = [shape for shape in shapes if len(shape) == 2]
    found = [(len(layer.prefix), len(layer.suffix)) for layer in plan if isinstance(layer, LinearPlan)]
    if found != expected:
        raise ValueError(f"plan: expected that of a network with weights {expected}, found one for {found}")


def _widths(params: Params, layers: Sequence[int], direct: Sequence[bool]) -> Iterator[list[int]]:
    """The widths of each block's layers."""
    at = 0
    for count, more in zip(layers, direct, strict=True):
        yield [w.shape[0] for w in params[at : at + 2 * count : 2] if w is not None]
        at += 2 * count + more


# `described`: the fields of `Described`, then `save` or `needs`, and `log_prob`: z is standard normal then, and the
# log-density of x the result.


def _forward(
    x: Tensor, params: Params, contexts: Contexts, log_det: Tensor | None, plan: Params, *described: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        return _kernel().forward(x, params, contexts[0], log_det, plan, *_only(described))
    z, total, saved = _forward_fake(x, params, contexts, log_det, plan, *described)
    *of_blocks, save, log_prob = described
    outputs = None if z.dim() == 1 else z, total, saved if save else None
    stack_of(plan, of_blocks).forward(x, params, contexts, log_det, log_prob, *outputs)
    return z, total, saved


def _forward_fake(
    x: Tensor, params: Params, contexts: Contexts, log_det: Tensor | None, plan: Params, *described: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *of_blocks, save, log_prob = described
    spec = Described(*of_blocks)
    kept = 0
    if save:
        # Of each block its hidden units, its network's outputs, and what the next block reads.
        units = sum(sum(widths[:-1]) for widths in _widths(params, spec.layers, spec.direct))
        kept = x.shape[0] * (units + (3 * len(spec.layers) - 1) * x.shape[1])
    between = len(spec.layers) > 1 and not save
    return empty_rows(x) if between or not log_prob else x.new_empty(0), per_row(x), x.new_empty(kept)


def _backward(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Params,
    saved: Tensor,
    plan: Params,
    *described: Any,
) -> list[Tensor]:
    *of_blocks, needs, log_prob = described
    if backends.on_triton(x):
        gx, gc, gparams = _kernel().backward(grad_z, grad_total, x, params, saved, plan, *_only(described))
        return [g for g, needed in zip((gx, gc, *gparams), needs, strict=True) if needed]
    grads = _backward_fake(grad_z, grad_total, x, params, saved, plan, *described)
    room = iter(grads)
    of_x, *others = [next(room) if needed else None for needed in needs]
    count = len(of_blocks[0])
    between = empty_rows(x) if of_x is None and count > 1 else of_x
    stack_of(plan, of_blocks).backward(
        grad_z, grad_total, x, params, saved, log_prob, of_x, between, others[:count], others[count:]
    )
    return grads


def _backward_fake(
    grad_z: Tensor | None,
    grad_total: Tensor | None,
    x: Tensor,
    params: Params,
    saved: Tensor,
    plan: Params,
    *described: Any,
) -> list[Tensor]:
    """Room for the gradients that are needed: of x, of the contexts' terms, of the parameters."""
    *of_blocks, needs, _ = described
    spec = Described(*of_blocks)
    count = len(spec.layers)
    grads = [empty_rows(x)] if needs[0] else []
    if any(needs[1 : 1 + count]):
        widths = [own[0] for own in _widths(params, spec.layers, spec.direct)]
        grads += [x.new_empty(x.shape[0], n) for n, needed in zip(widths, needs[1 : 1 + count], strict=True) if needed]
    # They are contiguous, and made alike in a third of the time that their shapes take.
    grads += [torch.empty_like(p) for p, needed in zip(params, needs[1 + count :], strict=True) if needed and p is not None]
    return grads


def _kernel() -> Any:
    return backends.kernels("masked_autoregressive")


def _only(described: Sequence[Any]) -> tuple[Any, ...]:
    """What is said of the only block, without lists of blocks."""
    layers, activations, residuals, *of_block, needs_or_save, log_prob = described
    (_,) = layers
    return activations, residuals, *(value for (value,) in of_block), needs_or_save, log_prob


_BLOCKS = (
    "Tensor?[] plan, int[] layers, str[] activations, int[] residuals, bool[] direct, bool[] divide, int[] kind,"
    " float[] first, float[] second"
)
call = register(
    f"masked_autoregressive(Tensor x, Tensor?[] params, Tensor?[] context_terms, Tensor? log_det, {_BLOCKS}, bool save,"
    " bool log_prob) -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "masked_autoregressive_backward(Tensor? grad_z, Tensor? grad_total, Tensor x, Tensor?[] params, Tensor saved,"
    f" {_BLOCKS}, bool[] needs, bool log_prob) -> Tensor[]",
    _backward,
    _backward_fake,
)


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(
        plan: list[Tensor | None],
        described: Described,
        log_prob: bool,
        definition: Callable,
        x: Tensor,
        log_det: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = len(described.layers)
        return call(x, tensors[count:], tensors[:count], log_det, plan, *described, True, log_prob)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.plan, ctx.described, ctx.log_prob, ctx.definition, x, _, *tensors = inputs
        z, _, saved = output
        ctx.mark_non_differentiable(*((z, saved) if ctx.log_prob else (saved,)))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, saved, *tensors)

    @staticmethod
    def backward(ctx, grad_z, grad_total, _):  # type: ignore[no-untyped-def]
        x, saved, *tensors = ctx.saved_tensors
        of_x, of_log_det, *of_tensors = ctx.needs_input_grad[4:]
        needs = [of_x, *of_tensors]
        passed = grad_total if of_log_det else None
        if ctx.log_prob:
            grad_z = None  # a compiler makes one up
        if not any(needs) or (grad_z is None and grad_total is None):
            return None, None, None, None, None, passed, *(None for _ in tensors)
        if twice_differentiable():
            incoming = (grad_total,) if ctx.log_prob else (grad_z, grad_total)
            of_x, *grads = differentiable(ctx.definition, (x, *tensors), needs, incoming)
        else:
            params = tensors[len(ctx.described.layers) :]
            found = _call_backward(grad_z, grad_total, x, params, saved, ctx.plan, *ctx.described, needs, ctx.log_prob)
            made = iter(found)
            of_x, *grads = [next(made) if needed else None for needed in needs]
        return None, None, None, None, of_x, passed, *grads


def differentiable_call(
    definition: Callable,
    x: Tensor,
    params: Params,
    contexts: Contexts,
    log_det: Tensor | None,
    plan: list[Tensor | None],
    described: Described,
    log_prob: bool,
) -> tuple[Tensor, Tensor]:
    """`call` with gradients. definition: of x, the contexts' terms and the parameters, log_det aside."""
    z, total, _ = apply(_Stack, plan, described, log_prob, definition, x, log_det, *contexts, *params)
    return z, total
