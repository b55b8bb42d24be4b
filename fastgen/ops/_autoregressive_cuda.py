"""The CUDA C++ kernels of autoregressive_inverse: what they are called with, and the matrix products around them."""

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


def _upcast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Half tensors in float32: the kernels read float32 and float64."""
    return [t.float() if t is not None and t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors]


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
    solution = v if v.dtype in (torch.float32, torch.float64) else torch.empty_like(v, dtype=torch.float32)
    w, context_terms, *params = _upcast(w, context_terms, *params)  # type: ignore[assignment]
    with torch.cuda.device_of(w):
        backends.compiled().autoregressive_inverse_cuda_forward(
            w, params, context_terms, log_det, layers, walk, *described, solution, total, w.new_empty, _stream(w)
        )
    if solution is not v:
        v.copy_(solution)


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
    grad_v, w, v, context_terms, *params = _upcast(grad_v, w, v, context_terms, *params)  # type: ignore[assignment]
    y, saved = evaluate(v, params, context_terms, layers, *spec, 1, True)
    y = y.flatten(1)
    gw, deltas = torch.empty_like(v), v.new_empty(saved.numel() + y.numel())
    with torch.cuda.device_of(w):
        backends.compiled().autoregressive_inverse_cuda_backward(
            grad_v, grad_log_det, w, v, y, saved, params, layers, walk, *described, gw, deltas, w.new_empty, _stream(w)
        )
    gc, gparams = backends.kernels("masked_mlp").parameter_gradients(
        deltas, v, params, saved, layers, spec.activations, spec.direct, needs[1:]
    )
    return [g.to(dtype) for g in chosen((gw, gc, *gparams), needs)]
