"""The torch library `fastgen`, which every kernel is registered in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import Library

from ..reference.accumulate import accumulator

_library = Library("fastgen", "DEF")


def register(schema: str, run: Callable, fake: Callable) -> Callable:
    """Defines `fastgen::<schema>`, implemented by `run` on CPU and CUDA tensors and by `fake` on fake ones.

    Returns what a Function calls: the registered operation where a compiler is looking, else `run` itself, because the way
    through the dispatcher and back into Python costs as much as a small kernel.
    """
    _library.define(schema)
    name = schema[: schema.index("(")]
    _library.impl(name, _filled(run), "CPU")
    _library.impl(name, _filled(run), "CUDA")
    torch.library.register_fake(f"fastgen::{name}", _filled(fake), lib=_library)
    operation = getattr(torch.ops.fastgen, name)

    def call(*args: Any) -> Any:
        return operation(*args) if torch.compiler.is_compiling() else run(*args)

    return call


def _filled(run: Callable) -> Callable:
    """`run` for the dispatcher, which takes no None for a tensor: one of no elements in its place."""

    def filled(*args: Any) -> Any:
        found = run(*args)
        if not isinstance(found, tuple) or all(t is not None for t in found):
            return found
        like = next(a for a in args if isinstance(a, Tensor))
        return tuple(like.new_empty(0) if t is None else t for t in found)

    return filled


def needs_gradients(*tensors: Tensor | None) -> bool:
    """Whether a call has to go through its Function: for gradients, or to refuse forward mode, whose tangents it would drop."""
    return _needs_gradients(tensors)


def _needs_gradients(args: Sequence[Any]) -> bool:
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for a in args:
            if isinstance(a, Tensor) and a.requires_grad:
                return True
    return False


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """`function.apply(*args)`, less what costs more than the rest of a small call.

    That is the inspection of its signature, and all of it where no gradients are wanted.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return function.apply(*args)
    if not _needs_gradients(args):
        return function.forward(*args)
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]


def empty_rows(x: Tensor) -> Tensor:
    """Room for what is shaped as x, one row after the other."""
    # In half the time that its shape takes, and the layout another third.
    if x.is_contiguous():
        return torch.empty_like(x)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def per_row(x: Tensor) -> Tensor:
    """Room for a log-determinant or a log-density of each row of x."""
    return x.new_empty(x.shape[0], dtype=accumulator(x.dtype))


def room_for(needs: Sequence[bool], *inputs: Tensor) -> tuple[Tensor | None, ...]:
    """Room for the gradients of the inputs; None where one is not needed."""
    return tuple([empty_rows(t) if n else None for t, n in zip(inputs, needs, strict=True)])


def wanted(grads: Sequence[Tensor | None], needs: Sequence[bool]) -> Sequence[Tensor | None]:
    """The gradients, None for those that are not needed."""
    return grads if all(needs) else [g if n else None for g, n in zip(grads, needs, strict=True)]


def chosen(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    """The gradients that are needed, alone."""
    return [g for g, needed in zip(grads, needs, strict=True) if needed]


def spread(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """What `chosen` left, in its places, None for those that are not needed."""
    left = iter(grads)
    return [next(left) if needed else None for needed in needs]


def differentiable(
    function: Callable, inputs: Sequence[Tensor | None], needed: Sequence[bool], grad_outputs: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """The gradients of `function(*inputs)`, made of PyTorch operations that can be differentiated again.

    For the `backward` of a Function when its gradients are to be differentiated: a kernel would drop the second-order
    terms without a word.
    """
    # Views, so that an argument given twice keeps two gradients.
    views = [t.view_as(t) if isinstance(t, Tensor) else t for t in inputs]
    outputs = function(*views)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = [(o, g) for o, g in zip(outputs, grad_outputs, strict=True) if g is not None and o.requires_grad]
    if not pairs:
        return [None for _ in needed]
    wanted = [v for v, n in zip(views, needed, strict=True) if n and v is not None]
    grads = iter(
        torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True)
    )
    return [next(grads) if n else None for n in needed]


def twice_differentiable() -> bool:
    """Whether the backward pass that is running may itself be differentiated."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
