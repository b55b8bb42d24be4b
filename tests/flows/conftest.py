"""What tests of flows share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from fastgen.flows import Transform


def _randomised(module: nn.Module, std: float = 0.4) -> nn.Module:
    """The module in float64, its parameters all far from zero."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)
    return module


def _check_transform(transform: Transform, x: Tensor, context: Tensor | None = None) -> None:
    """Both log_dets are those of autograd's Jacobian, the inverse undoes the forward, and a log_det given is added to."""
    z, log_det = transform(x, context)
    back, back_log_det = transform.inverse(z, context)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-9, atol=1e-9)
    given = torch.randn_like(log_det)
    torch.testing.assert_close(transform(x, context, log_det=given)[1], given + log_det, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(transform.inverse(z, context, log_det=given)[1], given - log_det, rtol=1e-9, atol=1e-9)
    for i, row in enumerate(x):
        c = context[i] if context is not None and context.dim() > 1 else context
        truth = torch.linalg.slogdet(jacobian(lambda t: transform(t, c)[0], row))[1]  # noqa: B023
        torch.testing.assert_close(log_det[i], truth, rtol=1e-10, atol=1e-10)
        truth = torch.linalg.slogdet(jacobian(lambda t: transform.inverse(t, c)[0], z[i].detach()))[1]  # noqa: B023
        torch.testing.assert_close(back_log_det[i], truth, rtol=1e-8, atol=1e-8)


@pytest.fixture
def randomised() -> Callable[..., nn.Module]:
    torch.manual_seed(0)
    return _randomised


@pytest.fixture
def check_transform() -> Callable[..., None]:
    torch.manual_seed(0)
    return _check_transform


@pytest.fixture(autouse=True, scope="module")
def compiled_anew() -> Iterator[None]:
    """Every file starts without compiled code: the compiler gives up on a function that it meets with too many flows."""
    torch._dynamo.reset()
    yield
