"""Whose turn it is, among several that are trained one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cycle(nn.Module):
    """0, 1, ..., count - 1, 0, 1, ...; the state_dict holds where it stands, so that a resumed run goes on from there."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        # Not a tensor: reading one would wait for its device.
        self.turn = 0

    def next(self) -> int:
        """Whose turn it is; then it is the next one's."""
        turn = self.turn
        self.turn = (turn + 1) % self.count
        return turn

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.turn)

    def set_extra_state(self, state: Tensor) -> None:
        """Raises ValueError unless `state` holds one of 0..count - 1."""
        if not isinstance(state, Tensor) or state.dtype != torch.int64 or state.numel() != 1:
            found = f"{state.dtype} of shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(f"turn: expected an int64 tensor of one number, found {found}")
        turn = int(state)
        if not 0 <= turn < self.count:
            raise ValueError(f"turn: expected one of 0..{self.count - 1}, found {turn}")
        self.turn = turn

    def extra_repr(self) -> str:
        return f"count={self.count}"
