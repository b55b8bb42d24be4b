"""Plans: degree vectors turned, once, into what a masked kernel walks.

In the order of their degrees inputs and outputs form a staircase: every output sees a prefix of the inputs, every input is
seen by a suffix of the outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..reference import MaskedNetwork
from . import _check
from ._walk import Walk, make_walk


class LinearPlan(NamedTuple):
    """The staircase of one masked linear layer: int32 tensors on the device of its inputs.

    in_order: (in,) the inputs sorted by degree; None when they are in order as they stand.
    out_order: (out,) likewise for outputs.
    prefix: (out,) for each sorted output, how many sorted inputs it sees; never falling.
    suffix: (in,) for each sorted input, the first sorted output that sees it (`out` where none does); never falling.
    """

    in_order: Tensor | None
    out_order: Tensor | None
    prefix: Tensor
    suffix: Tensor


# One for every layer, then for the direct connections where there are any; on a CUDA device the walk comes last.
NetworkPlan = tuple[LinearPlan | Walk, ...]


def check_degrees(degrees: Tensor, name: str, length: int | None = None) -> Tensor:
    """Raises ValueError or TypeError unless `degrees` is a CPU vector of degrees in [0, 2^31), at least one or `length`."""
    _check.degrees(degrees, name, length)
    if degrees.min() < 0 or degrees.max() > torch.iinfo(torch.int32).max:
        raise ValueError(f"{name}: expected degrees in [0, 2^31), found {int(degrees.min())} to {int(degrees.max())}")
    return degrees


def _sorted(degrees: Tensor) -> tuple[Tensor, Tensor | None]:
    values, order = degrees.sort(stable=True)
    return values, None if torch.equal(values, degrees) else order


def make_plan(
    in_degrees: Tensor, out_degrees: Tensor, *, strict: bool = False, device: torch.device | str = "cpu"
) -> LinearPlan:
    """The plan of a masked linear layer. Degrees are int64 vectors on the CPU; raises ValueError or TypeError otherwise."""
    inputs, in_order = _sorted(check_degrees(in_degrees, "in_degrees"))
    outputs, out_order = _sorted(check_degrees(out_degrees, "out_degrees"))
    prefix = torch.searchsorted(inputs, outputs, right=not strict)
    suffix = torch.searchsorted(outputs, inputs, right=strict)

    def place(t: Tensor) -> Tensor:
        return t.to(device=device, dtype=torch.int32)

    return LinearPlan(
        place(in_order) if in_order is not None else None,
        place(out_order) if out_order is not None else None,
        place(prefix),
        place(suffix),
    )


def make_network_plan(network: MaskedNetwork, device: torch.device | str = "cpu") -> NetworkPlan:
    """The plans of a network's layers, then of its direct connections where it has any, and on a CUDA device its walk."""
    masks = [(layer.in_degrees, layer.out_degrees, layer.strict) for layer in network.layers]
    if network.direct:
        masks.append((network.layers[0].in_degrees, network.layers[-1].out_degrees, True))

    def plans(device: torch.device | str) -> tuple[LinearPlan, ...]:
        return tuple(
            make_plan(*(torch.tensor(d, device="cpu") for d in degrees), strict=strict, device=device)
            for *degrees, strict in masks
        )

    if torch.device(device).type != "cuda":
        return plans(device)
    return (*plans(device), make_walk(network, [plan.prefix for plan in plans("cpu")], device))
