"""Floating-point operations, in matrix products, of one call of a registered operation: torch's own and fastgen's.

A masked product counts what its mask lets through. Elementwise work counts none: it is limited by the bytes it moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.flop_counter import flop_registry

# What a plan holds for every masked layer, and where among it the number of inputs that each output sees.
_PLAN_FIELDS, _PREFIX = 4, 2


def operation_flops(operation: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: object) -> float:
    """Of one call. The tensors may be fake; plans have to be real ones, made for the CPU."""
    namespace, _, name = operation._schema.name.partition("::")
    if namespace == "fastgen":
        count = _OURS.get(name)
        given = {argument.name: value for argument, value in zip(operation._schema.arguments, args, strict=False)}
        return 0 if count is None else count({**given, **kwargs})
    formula = flop_registry.get(operation._overloadpacket)
    return 0 if formula is None else formula(*args, **kwargs, out_val=result)


def _allowed(plan: Sequence[Tensor]) -> list[int]:
    """How many weights of each layer the masks let through."""
    with unset_fake_temporarily():
        return [int(prefix.sum()) for prefix in plan[_PREFIX::_PLAN_FIELDS]]


def _rows(x: Tensor) -> int:
    return math.prod(x.shape[:-1])


def _masked(rows: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda given: 2 * _rows(given[rows]) * sum(_allowed(given["plan"]))


def _masked_backward(given: Mapping[str, Any]) -> float:
    """Two products for each layer; one for the first where nobody asks for the gradient of the input."""
    first, *rest = _allowed(given["plan"])
    return 2 * _rows(given["x"]) * (2 * sum(rest) + (2 if given["needs"][0] else 1) * first)


def _planar(given: Mapping[str, Any]) -> float:
    """Two thin products where all rows share the parameters (K, D)."""
    u = given["u"]
    return 4 * _rows(given["z"]) * u.numel() if u.dim() == 2 else 0


_OURS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "masked_linear": _masked("x"),
    "masked_linear_backward": _masked_backward,
    "masked_mlp": _masked("x"),
    "masked_mlp_backward": _masked_backward,
    "masked_autoregressive": _masked("x"),
    "masked_autoregressive_backward": _masked_backward,
    "autoregressive_inverse": _masked("w"),
    # The network once more at the solution, then back.
    "autoregressive_inverse_backward": lambda given: 3 * _masked("w")(given),
    "planar": _planar,
    "planar_backward": lambda given: 2 * _planar(given),
}
