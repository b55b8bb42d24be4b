"""The activations every layer, kernel and adapter knows, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def softplus(x: Tensor) -> Tensor:
    """max(x, 0) + log1p(exp(-|x|)), whose derivative is the sigmoid (`F.softplus` is linear above 20)."""
    return torch.logaddexp(x, x.new_zeros(()))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": softplus,
    "silu": F.silu,
    "gelu": F.gelu,
}


def activation_name(activation: str | None) -> str:
    """The name of an activation, `None` being the identity. Raises ValueError for one that is not in the list."""
    name = "identity" if activation is None else activation
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, found {activation!r}")
    return name
