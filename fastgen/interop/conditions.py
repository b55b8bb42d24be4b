"""Whether a call may take the fast way. Where it may not, the library's own code runs: same numbers, same errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_state

_DTYPES = (torch.float32, torch.float64)
_PLAIN = (Tensor, nn.Parameter)


def ordinary(first: Tensor, *others: Tensor | None) -> bool:
    """Whether all are plain tensors of one dtype (float32 or float64) and one device, in an ordinary or a compiled call.

    Autocast, torch.func, forward mode and tracing are not ordinary: there each library has its own dtypes and rules.
    """
    if type(first) not in _PLAIN or first.dtype not in _DTYPES or first.device.type not in ("cpu", "cuda"):
        return False
    for t in others:
        if t is not None and (type(t) not in _PLAIN or t.dtype != first.dtype or t.device != first.device):
            return False
    if torch.is_autocast_enabled(first.device.type):
        return False
    if torch.compiler.is_compiling():
        return True
    return not (torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or torch.jit.is_tracing())


def hooked(modules: Iterable[Any]) -> bool:
    """Whether something waits to be told of calls of one of these modules, which a fused call would not make."""
    if module_state._has_any_global_hook():
        return True
    for m in modules:  # noqa: SIM110 - a generator costs as much as the rest
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
            return True
    return False


def hooks_of(modules: Iterable[Any]) -> tuple[Any, ...]:
    """Where the hooks of these modules are kept: `any` of it tells whether there are some."""
    return tuple(
        hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
    )


def changed(module: Any) -> str | None:
    """Why a module of a known class does not do what its class does; None where it does."""
    if hooked([module]):
        return "forward or backward hooks"
    if "forward" in module.__dict__:
        return "a forward of its own"
    return None
