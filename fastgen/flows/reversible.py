"""Stacks of transforms that keep their last output alone and rebuild the rest from it on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class RandomState:
    """The state of torch's generators on the CPU and on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.states = self._now()

    def _now(self) -> tuple[Tensor, ...]:
        if self.device.type == "cpu":
            return (torch.get_rng_state(),)
        return torch.get_rng_state(), torch.get_device_module(self.device).get_rng_state(self.device)

    def advanced(self) -> bool:
        """Whether random numbers have been drawn since."""
        return not all(torch.equal(then, now) for then, now in zip(self.states, self._now(), strict=True))

    def restore(self) -> None:
        torch.set_rng_state(self.states[0])
        for state in self.states[1:]:
            torch.get_device_module(self.device).set_rng_state(state, self.device)


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """What follows draws the random numbers that were drawn inside, again."""
    state = RandomState(device)
    try:
        yield
    finally:
        state.restore()
