"""What is timed of a whole model: a training step, an evaluation without gradients; and what they are checked by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Small enough that the model stays what it was checked to be.
LEARNING_RATE = 1e-6

LogProb = Callable[[Tensor], Tensor]


def training_step(model: nn.Module, log_prob: LogProb, x: Tensor, *, fused: bool | None = None) -> Callable[[], None]:
    """A step of Adam on the rows of x."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return step


def evaluation(log_prob: LogProb, x: Tensor) -> Callable[[], Tensor]:
    """The call without gradients."""
    return torch.no_grad()(lambda: log_prob(x))


def value_and_gradients(parameters: Sequence[Tensor], log_prob: LogProb, x: Tensor) -> tuple[Tensor, ...]:
    """The log-densities of x and the gradients of their mean."""
    value = log_prob(x)
    return (value, *torch.autograd.grad(value.mean(), parameters))
