"""The networks that a description can name, and several of them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .mlp import MLP, ConvNet, ResidualMLP
from .named import description_of, kind_of


class Joined(nn.Module):
    """Networks of one input whose answers lie side by side, (..., out_features of the first + of the second + ...).

    Args:
        networks: each as `build_network` takes it.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module | Mapping[str, Any]],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(build_network(network, device=device, dtype=dtype) for network in networks)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same networks again."""
        return {"networks": [describe_network(network) for network in self.networks]}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (..., in_features) and context (..., F), which go to all networks."""
        given = (x,) if context is None else (x, context)
        return torch.cat([network(*given) for network in self.networks], -1)


NETWORKS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (MLP, ResidualMLP, ConvNet, Joined)}


def build_network(network: nn.Module | Mapping[str, Any], **placed: Any) -> nn.Module:
    """The network itself, or one of NETWORKS: its name under "network" and its arguments; with device and dtype.

    Raises ValueError for an unknown name, TypeError for what is no description.
    """
    if isinstance(network, nn.Module):
        return network
    kind, options = kind_of(network, "network", "network", NETWORKS)
    return kind(**options, **placed)


def describe_network(network: nn.Module) -> dict[str, Any]:
    """What `build_network` makes the same network from. Raises TypeError for a network of one's own."""
    return description_of(network, "network", "network", NETWORKS)
