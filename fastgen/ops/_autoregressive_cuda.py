"""The CUDA C++ kernels of autoregressive networks: what they are called with, and the matrix products around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ._library import chosen
from ._network import Spec
from .masked_mlp import evaluate

Tensors = Sequence[Tensor | None]
_TAKEN = (torch.float32, torch.float64)


def _upcast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Half tensors in float32: what the kernels compute in, as in float64."""
    return [t.float() if t is not None and t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors]


def _with_weights(params: Tensors) -> list[Tensor | None]:
    """Parameters as the kernels take them: bfloat16 weights, every second one, are read as they are."""
    return [t if i % 2 == 0 and t is not None and t.dtype == torch.bfloat16 else _upcast(t)[0] for i, t in enumerate(params)]


def _tf32() -> bool:
    return backends.kernels("_launch").allows_tf32()


def _stream(t: Tensor) -> int:
    return torch.cuda.current_stream(t.device).cuda_stream


def forward(
    v: Tensor,
    total: Tensor,
    w: Tensor,
    params: Tensors,
    context_terms: Tensor | None,
    log_det: Tensor | None,
    plan: Tensors,
    *described: Any,
) -> None:
    """The solution into v (B, D), and into total (B,) its log_det."""
    *layers, walk = plan
    solution = v if v.dtype in _TAKEN else torch.empty_like(v, dtype=torch.float32)
    w, context_terms = _upcast(w, context_terms)  # type: ignore[assignment]
    given = w, _with_weights(params), context_terms, log_det, layers, walk, *described, _tf32()
    with torch.cuda.device_of(w):
        backends.compiled().autoregressive_inverse_cuda_forward(*given, solution, total, w.new_empty, _stream(w))
    if solution is not v:
        v.copy_(solution)


def sample(
    x: Tensor,
    noise: Tensor,
    params: Tensors,
    context_terms: Tensor | None,
    given: Tensor | None,
    known: int,
    plan: Tensors,
    *described: Any,
) -> None:
    """Samples into x (B, D), from noise (B, D Q)."""
    *layers, walk = plan
    values = x if x.dtype in _TAKEN else torch.empty_like(x, dtype=torch.float32)
    noise, context_terms, given = _upcast(noise, context_terms, given)  # type: ignore[assignment]
    arguments = noise, _with_weights(params), context_terms, given, known, layers, walk, *described, _tf32()
    with torch.cuda.device_of(noise):
        backends.compiled().autoregressive_sample_cuda(*arguments, values, noise.new_empty, _stream(noise))
    if values is not x:
        x.copy_(values)


def backward(
    grad_v: Tensor | None,
    grad_log_det: Tensor | None,
    w: Tensor,
    v: Tensor,
    params: Tensors,
    context_terms: Tensor | None,
    needs: Sequence[bool],
    plan: Tensors,
    *described: Any,
) -> list[Tensor]:
    """The gradients that are needed: of w, of the context's terms, of the parameters."""
    *layers, walk = plan
    dtype, spec = w.dtype, Spec(*described[: len(Spec._fields)])
    taken = _with_weights(params)
    grad_v, w, v, context_terms, *params = _upcast(grad_v, w, v, context_terms, *params)  # type: ignore[assignment]
    y, saved = evaluate(v, params, context_terms, layers, *spec, 1, True)
    y = y.flatten(1)
    gw, deltas = torch.empty_like(v), v.new_empty(saved.numel() + y.numel())
    given = grad_v, grad_log_det, w, v, y, saved, taken, layers, walk, *described, _tf32()
    with torch.cuda.device_of(w):
        backends.compiled().autoregressive_inverse_cuda_backward(*given, gw, deltas, w.new_empty, _stream(w))
    gc, gparams = backends.kernels("masked_mlp").parameter_gradients(
        deltas, v, params, saved, layers, spec.activations, spec.direct, needs[1:]
    )
    return [g.to(dtype) for g in chosen((gw, gc, *gparams), needs)]
