"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """w <- d w + (1 - d) parameter, d = min(decay, (1 + n) / (10 + n)) at update n: early weights are soon forgotten."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.weights = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, n: int) -> None:
        keep = min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(self.weights, [p.detach() for p in self.parameters], 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self.parameters):
            parameter.data, self.weights[i] = self.weights[i], parameter.data

    def load(self, weights: Sequence[Tensor]) -> None:
        for own, other in zip(self.weights, weights, strict=True):
            own.copy_(other)
