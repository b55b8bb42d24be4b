"""The name of an activation function or module of PyTorch among those that fastgen's networks know."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .conditions import changed

_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    F.leaky_relu: "leaky_relu",
    F.elu: "elu",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.softplus: "softplus",
    F.silu: "silu",
    F.gelu: "gelu",
}
# Each with the options that it has to have.
_MODULES: tuple[tuple[type[nn.Module], str, dict[str, Any]], ...] = (
    (nn.Identity, "identity", {}),
    (nn.ReLU, "relu", {}),
    (nn.LeakyReLU, "leaky_relu", {"negative_slope": 0.01}),
    (nn.LeakyReLU, "relu", {"negative_slope": 0.0}),
    (nn.ELU, "elu", {"alpha": 1.0}),
    (nn.Tanh, "tanh", {}),
    (nn.Sigmoid, "sigmoid", {}),
    (nn.Softplus, "softplus", {"beta": 1, "threshold": 20}),
    (nn.SiLU, "silu", {}),
    (nn.GELU, "gelu", {"approximate": "none"}),
)


def activation_of(activation: Any) -> str | None:
    """The name of `activation`, a function or a module; None where it is none of the known."""
    if isinstance(activation, nn.Module):
        for kind, name, options in _MODULES:
            if type(activation) is kind and all(getattr(activation, key) == value for key, value in options.items()):
                return name if changed(activation) is None else None
        return None
    try:
        return _FUNCTIONS.get(activation)
    except TypeError:  # not hashable
        return None
