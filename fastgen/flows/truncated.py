"""A flow restricted to a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops import _check
from .batch import sample_shape
from .box import Bound, Box
from .checks import refuse_export
from .flow import Flow, placed_like

# Rows drawn at a time beyond those asked for, so that memory stays bounded.
ROWS = 2**16


class Acceptance(NamedTuple):
    """How many draws from a flow fell into the box, (C...) each, for a context (C..., F); () without one."""

    accepted: Tensor
    drawn: Tensor

    @property
    def rate(self) -> Tensor:
        return self.accepted.double() / self.drawn

    @property
    def standard_error(self) -> Tensor:
        """That of the rate, sqrt(rate (1 - rate) / drawn)."""
        return (self.rate * (1 - self.rate) / self.drawn).sqrt()


class Truncated(nn.Module):
    """The distribution of a flow's x given low <= x <= high, by rejection.

    Its log-density is log p(x) - log Z inside the box, -inf outside, where Z, the flow's probability of the box, is estimated
    by Monte Carlo: its relative error e, `acceptance.standard_error / acceptance.rate`, shifts all log-densities alike by
    about e nats. There are no gradients, for that of Z is not known: train the flow itself.

    Args:
        flow: the flow.
        low, high: a number for each feature, or one for all; None, alone or among them, is no bound.
        max_draws: how many draws a sample may cost on average.

    Attributes:
        acceptance: of the latest call that drew; None before.

    Raises:
        ValueError: another number of bounds than features, low >= high, or max_draws below 1.
    """

    discrete = False

    def __init__(self, flow: Flow, low: Bound, high: Bound, *, max_draws: int = 10_000) -> None:
        super().__init__()
        if max_draws < 1:
            raise ValueError(f"max_draws: expected at least 1, found {max_draws}")
        self.flow = flow
        box = Box(low, high, flow.base.features)
        self.box = box.to(placed_like(flow, box.low))
        self.max_draws = max_draws
        self.acceptance: Acceptance | None = None
        self._kept: tuple[tuple[int, ...], Acceptance] | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers of modules reach it."""
        return self.log_prob(x, context)

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, context: Tensor | None = None, *, n: int = 100_000, generator: torch.Generator | None = None
    ) -> Tensor:
        """The log-density of x (..., D) given context (..., F), their batches broadcast: (...) in nats, without gradients.

        Without a context Z is estimated once for the flow's parameters and n, and kept.

        Args:
            n: how many draws estimate Z, of each context.
            generator: where they are drawn from, on the device of the flow; None: torch's own.

        Raises:
            RuntimeError: none of the draws fell into the box.
        """
        _check.features(x, "x", self.box.features)
        acceptance = self._acceptance(n, context, generator)
        if not acceptance.accepted.all():
            raise RuntimeError(f"Truncated: expected draws inside the box, found none among {n}")
        log_prob = self.flow.log_prob(x, context)
        log_prob = log_prob - acceptance.rate.log().to(log_prob.dtype)
        return torch.where(self.box.contains(x), log_prob, -math.inf)

    @torch.no_grad()
    def sample(
        self, n: int | Sequence[int], context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """n samples: (n, D), with a context (C..., F) (n, C..., D); n may be a shape.

        generator: where the noise is drawn from, on the device of the flow; None: torch's own.

        Raises RuntimeError where a sample costs more than `max_draws` draws.
        """
        shape = sample_shape(n)
        batch = () if context is None else context.shape[:-1]
        contexts = None if context is None else context.reshape(-1, context.shape[-1])
        refuse_export("Truncated.sample", "the samples of its flow, for it draws as often as it has to,")
        samples, acceptance = self._reject(math.prod(shape), math.prod(batch), contexts, generator)
        self.acceptance = Acceptance(*(count.view(batch) for count in acceptance))
        return samples.view(*shape, *batch, self.box.features)

    @torch.no_grad()
    def acceptance_rate(
        self, n: int = 100_000, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The share of n draws that falls into the box, (C...) for a context (C..., F): float64.

        `acceptance` has its standard error. Raises ValueError for n below 1.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1, found {n}")
        contexts = 1 if context is None else math.prod(context.shape[:-1])
        drawn, accepted = 0, torch.zeros((), dtype=torch.int64, device=self.box.low.device)
        while drawn < n:
            count = min(n - drawn, max(1, ROWS // max(1, contexts)))
            accepted = accepted + self.box.contains(self.flow.sample(count, context, generator=generator)).sum(0)
            drawn += count
        self.acceptance = Acceptance(accepted, torch.full_like(accepted, drawn))
        return self.acceptance.rate

    def _acceptance(self, n: int, context: Tensor | None, generator: torch.Generator | None) -> Acceptance:
        # PyTorch counts how often a tensor was written to: the counts of a flow that was trained or loaded are others.
        state = (n, *(t._version for t in (*self.flow.parameters(), *self.flow.buffers())))
        if context is None and self._kept is not None and self._kept[0] == state:
            return self._kept[1]
        self.acceptance_rate(n, context, generator=generator)
        assert self.acceptance is not None
        if context is None:
            self._kept = state, self.acceptance
        return self.acceptance

    def _reject(
        self, n: int, rows: int, contexts: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Acceptance]:
        """n samples for each row of the contexts, the first of their draws in the box: (n * rows, D), row after row."""
        low = self.box.low
        samples: Tensor | None = None
        open_slots = torch.arange(n * rows, device=low.device)
        accepted, drawn = (torch.zeros(rows, dtype=torch.int64, device=low.device) for _ in range(2))
        each = 1
        while len(open_slots) or samples is None:
            row = open_slots % max(1, rows)
            if contexts is None:
                draws = self.flow.sample((each, len(open_slots)), generator=generator)
            else:
                draws = self.flow.sample(each, contexts[row], generator=generator)
            if samples is None:
                samples = draws.new_zeros(n * rows, draws.shape[-1])
            inside = self.box.contains(draws)
            drawn.index_add_(0, row, torch.full_like(row, each))
            accepted.index_add_(0, row, inside.sum(0))
            found, first = inside.max(0)
            samples[open_slots[found]] = draws[first[found], found.nonzero().flatten()]
            open_slots = open_slots[~found]
            self._refuse_few(accepted, drawn, open_slots % max(1, rows))
            # More draws for each where few slots are left, at most twice as many as in the round before.
            each = max(1, min(2 * each, ROWS // max(1, len(open_slots))))
        return samples, Acceptance(accepted, drawn)

    def _refuse_few(self, accepted: Tensor, drawn: Tensor, rows: Tensor) -> None:
        """Raises RuntimeError where one of these rows has had its draws and too few of them in the box."""
        few = (drawn[rows] >= self.max_draws) & (accepted[rows] * self.max_draws < drawn[rows])
        if few.any():
            row = rows[few][0]
            counts = f"{int(accepted[row])} of {int(drawn[row])} draws in the box"
            raise RuntimeError(f"Truncated: expected at least one draw in {self.max_draws} inside the box, found {counts}")
