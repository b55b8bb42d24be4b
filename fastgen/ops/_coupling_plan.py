"""The plan of a coupling layer: its mask looked at, once, on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..reference import Checkerboard
from ..reference.coupling import Mask


class CouplingPlan(NamedTuple):
    """Which features or channels a coupling layer transforms.

    places: int32 (D,) or (C,), on the device of the layer's inputs: 0, 1, ... where the mask is True, -1 where it is False;
        None for a checkerboard, which is computed from positions.
    transformed: in how many places the mask is True, the width of a compact shift; 0 for a checkerboard.
    """

    places: Tensor | None
    transformed: int


def make_coupling_plan(mask: Mask, device: torch.device | str = "cpu") -> CouplingPlan:
    """The plan of a mask, bool on the CPU, or of a Checkerboard, for inputs on `device`.

    Raises TypeError or ValueError for another dtype, device or shape.
    """
    if isinstance(mask, Checkerboard):
        return CouplingPlan(None, 0)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask: expected a bool tensor or a Checkerboard, found {found}")
    if mask.device.type != "cpu":
        raise ValueError(f"mask: expected a CPU tensor, or a plan of one, found a mask on {mask.device}")
    if mask.dim() != 1 or mask.shape[0] == 0:
        raise ValueError(f"mask: expected a vector of at least 1 value, found shape {tuple(mask.shape)}")
    places = torch.where(mask, mask.cumsum(0) - 1, -1)
    return CouplingPlan(places.to(device=device, dtype=torch.int32), int(mask.sum()))
