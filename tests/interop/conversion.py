"""What all conversions have to pass: equal densities, samples of the same noise, gradients, and a folder that keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fastgen.flows import Flow

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def trained(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Parameters far from where they started, as training leaves them."""
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in filter(torch.is_floating_point, model.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def check_equal(found: Tensor, expected: Tensor) -> None:
    """Equal relative to the larger of 1 and what is expected."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    error = ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()
    assert error <= TOLERANCE[expected.dtype], error


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """For libraries that start their loops and sums from zeros of the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def check_conversion(
    flow: Flow,
    log_prob: Callable[[Tensor], Tensor],
    from_noise: Callable[[Tensor], Tensor],
    x: Tensor,
    context: Tensor | None,
    folder: Path,
) -> None:
    """
    Args:
        log_prob, from_noise: what the other library makes of rows (B, D), of data and of its base's noise.
        x: rows (B, D).
        context: (B, F).
    """
    with torch.no_grad(), default_dtype(x.dtype):
        check_equal(flow.log_prob(x, context), log_prob(x))
        check_equal(flow.transform.inverse(x, flow.seen_context(context))[0], from_noise(x))
    if x.dtype == torch.float64:
        flow.save_pretrained(folder)
        assert torch.equal(Flow.from_pretrained(folder).log_prob(x, context), flow.eval().log_prob(x, context))
    weights = [p for p in flow.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(flow.log_prob(x, context).sum(), weights, allow_unused=True)
    found = [g for g in gradients if g is not None]
    assert any(g.abs().max() > 0 for g in found) and all(g.isfinite().all() for g in found)
