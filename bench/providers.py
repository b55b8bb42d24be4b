"""What fastgen is measured against beside the plain formula: the same formula through torch's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch._functorch.config

from .case import Setting

F = TypeVar("F", bound=Callable[..., Any])

# By the name of the candidate, torch.compile's mode.
_MODES = {"compiled": None}
_MODES_IN_FULL_ON_CUDA = {"compiled, max-autotune": "max-autotune-no-cudagraphs", "compiled, CUDA graphs": "reduce-overhead"}


def compiled(function: F, setting: Setting) -> dict[str, F]:
    """The function compiled, as a candidate for each mode that the setting asks for; none in a quick run.

    As a whole or not at all, and for the shapes that come: what is measured is what the compiler can do, not what it leaves
    to Python.
    """
    if setting.quick:
        return {}
    # "backward" runs through one graph again and again, whose buffers the compiler would otherwise give away.
    torch._functorch.config.donated_buffer = False
    modes: dict[str, str | None] = {**_MODES}
    if setting.full and setting.device == "cuda":
        modes |= _MODES_IN_FULL_ON_CUDA
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False}
    return {name: cast(F, torch.compile(function, mode=mode, **options)) for name, mode in modes.items()}
