"""What kernels are told of a masked network: its plan, flat, and its description; prepared once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..reference import MaskedNetwork
from ._library import empty_rows
from ._plan import LinearPlan, NetworkPlan, make_network_plan

Tensors = Sequence[Tensor | None]


class Spec(NamedTuple):
    """What a kernel is told of a network beside its plan: per layer the activation and the residual source (-1: none)."""

    activations: list[str]
    residuals: list[int]
    direct: bool


class FlatPlan(list):
    """A network's plan as a flat list, with what the C++ kernels made of it where they have."""

    compiled: Any = None


def compiled_plan(plan: Tensors, activations: Sequence[str], residuals: Sequence[int], direct: bool) -> Any:
    """The compiled module's object of the network, made once of a `FlatPlan`."""
    found = plan.compiled if isinstance(plan, FlatPlan) else None
    if found is None:
        found = backends.compiled().NetworkPlan(plan, activations, residuals, direct)
        if isinstance(plan, FlatPlan):
            plan.compiled = found
    return found


# Of networks that are still there, by what they are: preparing one costs as much as a small call.
_prepared: dict[tuple[int, int], tuple[FlatPlan, Spec, object]] = {}
_MOST = 256


def prepare(network: MaskedNetwork, plan: NetworkPlan | None, device: torch.device) -> tuple[list[Tensor | None], Spec]:
    """The flat plan and the description; the same ones while network and plan are the same objects.

    Raises ValueError for a plan of another network.
    """
    if plan is None or torch.compiler.is_compiling():
        return _flat(make_network_plan(network, device) if plan is None else plan), _spec_of(network)
    key = id(network), id(plan)
    found = _prepared.get(key)
    if found is None:
        _expect_fit(network, plan)
        if len(_prepared) >= _MOST:
            _prepared.clear()
        # Kept, so that no other object takes an address in the key.
        found = _prepared[key] = FlatPlan(_flat(plan)), _spec_of(network), (network, plan)
    return found[:2]


def _flat(plan: NetworkPlan) -> list[Tensor | None]:
    return [t for layer in plan for t in layer]


def _spec_of(network: MaskedNetwork) -> Spec:
    residuals = [-1 if layer.residual is None else layer.residual for layer in network.layers]
    return Spec([layer.activation for layer in network.layers], residuals, network.direct)


def _expect_fit(network: MaskedNetwork, plan: NetworkPlan) -> None:
    expected = [shape for shape in network.parameter_shapes if len(shape) == 2]
    found = [(len(layer.prefix), len(layer.suffix)) for layer in plan if isinstance(layer, LinearPlan)]
    if found != expected:
        raise ValueError(f"plan: expected that of a network with weights {expected}, found one for {found}")


def gradient_room(x: Tensor, params: Tensors, needs: Sequence[bool]) -> list[Tensor]:
    """Room for the gradients that are needed: of x, of the context's terms, of the parameters."""
    first = params[0]
    assert first is not None
    grads = [empty_rows(x)] if needs[0] else []
    if needs[1]:
        grads.append(x.new_empty(x.shape[0], first.shape[0]))
    # They are contiguous, and made alike in a third of the time that their shapes take.
    grads += [torch.empty_like(p) for p, needed in zip(params, needs[2:], strict=True) if needed and p is not None]
    return grads
