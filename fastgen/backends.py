"""Who computes: which implementation runs for a call, and why.

A call runs on the best implementation that can take its input and falls back to `fastgen.reference`, so that it never
fails for want of a fast path. `use(...)` or the environment variable FASTGEN_BACKEND force one; a forced one that cannot
run raises.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("auto", "reference", "cpu", "triton", "cuda")

# The fast implementations of each operation, in order of preference.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "masked_linear": ("cpu", "triton"),
    "masked_mlp": ("cpu", "triton"),
    "masked_autoregressive": ("cpu", "triton"),
    "masked_autoregressive_log_prob": ("cpu", "triton"),
    "masked_autoregressive_stack": ("cpu", "triton"),
    "masked_autoregressive_stack_log_prob": ("cpu", "triton"),
    "affine_autoregressive": ("cpu", "triton"),
    "affine_coupling": ("cpu", "triton"),
    "additive_coupling": ("cpu", "triton"),
    "gaussian_log_prob": ("cpu", "triton"),
    "gaussian_mixture_log_prob": ("cpu", "triton"),
    "gaussian_rsample_kl": ("cpu", "triton"),
    "gaussian_rsample_log_ratio": ("cpu", "triton"),
    "bernoulli_log_prob": ("cpu", "triton"),
    "categorical_log_prob": ("cpu", "triton"),
    "discretized_logistic_log_prob": ("cpu", "triton"),
    "autoregressive_inverse": ("cpu", "cuda"),
    "autoregressive_sample": ("cpu", "cuda"),
    "planar": ("cpu", "triton"),
    "planar_inverse": ("cpu", "triton"),
    "radial": ("cpu", "triton"),
    "radial_inverse": ("cpu", "triton"),
}

_CPU_DTYPES = (torch.float32, torch.float64)
_GPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PLAIN = (Tensor, torch.nn.Parameter)

_log = logging.getLogger("fastgen")
_logged: set[tuple[str, str]] = set()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Choice(NamedTuple):
    """The implementation that runs, and why that one."""

    backend: str
    reason: str


# What most calls run on; every operation has C++ kernels, and they come first.
_ON_CPU = {dtype: Choice("cpu", f"cpu tensors of {_short(dtype)}") for dtype in _CPU_DTYPES}


class BackendError(RuntimeError):
    """A forced backend cannot run the call."""


def _load_compiled() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("fastgen._C"), "built"
    except ImportError as error:
        return None, f"fastgen._C cannot be imported: {error}"


_compiled, _compiled_reason = _load_compiled()
_triton_reason = "installed" if importlib.util.find_spec("triton") else "triton is not installed"


def compiled() -> ModuleType:
    """The compiled module fastgen._C. Raises BackendError with the reason when it cannot be imported."""
    if _compiled is None:
        raise BackendError(_compiled_reason)
    return _compiled


def interpreting() -> bool:
    """Whether Triton kernels run on CPU tensors, through Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _checked(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where}: expected one of {', '.join(BACKENDS)}, found {name!r}")
    return name


_forced = _checked(os.environ.get("FASTGEN_BACKEND", "auto"), "FASTGEN_BACKEND")


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Forces a backend for every operation: "reference", "cpu", "triton", "cuda", or "auto" for the choice by input.

    Raises ValueError for another name. A call the forced backend cannot run raises BackendError.
    """
    global _forced
    before, _forced = _forced, _checked(backend, "backend")
    try:
        yield
    finally:
        _forced = before


def forced() -> str:
    """The backend in force: "auto" unless `use` or FASTGEN_BACKEND chose one."""
    return _forced


def _obstacle(backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot run on tensors of this device and dtype; None when it can."""
    if backend == "reference":
        return None
    if backend == "cpu":
        if _compiled is None:
            return _compiled_reason
        if device != "cpu":
            return f"the C++ kernels take CPU tensors, not {device}"
        return None if dtype in _CPU_DTYPES else f"the C++ kernels take float32 and float64, not {_short(dtype)}"
    if backend == "cuda":
        if device != "cuda":
            return f"the CUDA C++ kernels take CUDA tensors, not {device}"
        if _compiled is None or not _compiled.with_cuda:
            return "fastgen._C is built without CUDA" if _compiled else _compiled_reason
    # Triton for both: the gradients of CUDA C++ kernels end in products of matrices, which are Triton's.
    if _triton_reason != "installed":
        return _triton_reason
    if device != "cuda" and not (device == "cpu" and interpreting()):
        return f"Triton kernels take CUDA tensors, not {device}"
    return None if dtype in _GPU_DTYPES else f"the kernels of GPUs do not take {_short(dtype)}"


def choose_for(op: str, device: str, dtype: torch.dtype) -> Choice:
    """The implementation of `op` for plain tensors of this device type and dtype, with the reason."""
    if _forced != "auto":
        known = _forced in ("reference", *OPERATIONS[op])
        obstacle = _obstacle(_forced, device, dtype) if known else "it has no such implementation"
        if obstacle:
            raise BackendError(f"{op}: backend {_forced!r} is forced, but {obstacle}")
        return Choice(_forced, "forced")
    obstacles = []
    for backend in OPERATIONS[op]:
        obstacle = _obstacle(backend, device, dtype)
        if obstacle is None:
            return Choice(backend, f"{device} tensors of {_short(dtype)}")
        obstacles.append(obstacle)
    return Choice("reference", "; ".join(obstacles))


def choose(op: str, *tensors: Tensor | None) -> Choice:
    """The implementation of `op` for these arguments, with the reason. The first tensor rules device and dtype.

    Raises BackendError when a forced backend cannot run them.
    """
    first = tensors[0]
    assert first is not None
    if _forced == "auto" and first.is_cpu and first.dtype in _ON_CPU and _compiled is not None and _plain(tensors):
        return _ON_CPU[first.dtype]
    subclass = next((t for t in tensors if t is not None and type(t) not in _PLAIN), None)
    if subclass is not None and not torch.compiler.is_compiling():
        choice = Choice("reference", f"{type(subclass).__name__} is a tensor subclass")
        if _forced not in ("auto", "reference"):
            raise BackendError(f"{op}: backend {_forced!r} is forced, but {choice.reason}")
    else:
        choice = choose_for(op, first.device.type, first.dtype)
    if choice.backend == "reference" and not torch.compiler.is_compiling():
        _log_once(op, choice.reason)
    return choice


def plain(*tensors: Tensor) -> bool:
    """Whether a call runs on the C++ kernels, and they read its tensors as they stand: there is nothing to choose or convert.

    Of subclasses, negated views, several dtypes and whatever else asks for a closer look it says no.
    """
    return not torch.compiler.is_compiling() and _forced == "auto" and _compiled is not None and _compiled.plain(*tensors)


def alike(*tensors: Tensor) -> bool:
    """Whether they are `plain`, and matrices of one shape with at least one column: there is nothing to broadcast either."""
    return not torch.compiler.is_compiling() and _forced == "auto" and _compiled is not None and _compiled.alike(*tensors)


def _plain(tensors: Sequence[Tensor | None]) -> bool:
    for t in tensors:  # noqa: SIM110 - a generator costs as much as the rest
        if t is not None and type(t) not in _PLAIN:
            return False
    return True


def _log_once(op: str, reason: str) -> None:
    if reason != "forced" and (op, reason) not in _logged:
        _logged.add((op, reason))
        _log.info("%s runs on the reference: %s", op, reason)


def on_triton(x: Tensor) -> bool:
    """Whether a call that got past `choose` runs on Triton rather than on the C++ kernels."""
    return x.is_cuda or _forced == "triton"


def kernels(op: str) -> ModuleType:
    """The module of `op`'s Triton kernels, `fastgen.kernels.<op>`."""
    return importlib.import_module(f"fastgen.kernels.{op}")


def cpu_variant() -> str | None:
    """The instruction set the C++ kernels run with; None when they are not built."""
    return _compiled.cpu_variant() if _compiled else None
