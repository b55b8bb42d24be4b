"""Networks of contexts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..reference import ACTIVATIONS, activation_name
from .checks import at_least_one, check_context


class MLP(nn.Module):
    """Linear layers with an activation between them, from a context (..., F) to `features` numbers.

    Args:
        context_features: F.
        features: how many numbers it answers with.
        hidden_features: widths of the hidden layers; none makes it a linear map.
        activation: relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu or identity.

    Raises:
        ValueError: a width below 1, an unknown activation.
    """

    def __init__(
        self,
        context_features: int,
        features: int,
        *,
        hidden_features: Sequence[int] = (),
        activation: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(context_features=context_features, features=features)
        for width in hidden_features:
            at_least_one(hidden_features=width)
        self.activation = activation_name(activation)
        widths = (context_features, *hidden_features, features)
        layers = [nn.Linear(*ends, device=device, dtype=dtype) for ends in itertools.pairwise(widths)]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))

    @property
    def context_features(self) -> int:
        return self.layers[0].in_features

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same network again."""
        *hidden, last = (layer.out_features for layer in self.layers)
        sizes = {"context_features": self.context_features, "features": last}
        return {**sizes, "hidden_features": hidden, "activation": self.activation}

    def forward(self, context: Tensor) -> Tensor:
        """context (..., F) -> (..., features)."""
        *first, last = self.layers
        y = check_context(context, self.context_features)
        for layer in first:
            y = ACTIVATIONS[self.activation](layer(y))
        return last(y)


def build_embedding(embedding: nn.Module | Mapping[str, Any] | None, context_features: int) -> nn.Module | None:
    """The network itself, or the MLP that a dict of its arguments describes. Raises TypeError for anything else."""
    if embedding is None or isinstance(embedding, nn.Module):
        return embedding
    if not isinstance(embedding, Mapping):
        raise TypeError(f"embedding: expected a module or a dict, found {type(embedding).__name__}")
    return MLP(**{"context_features": context_features, **embedding})


@torch.no_grad()
def embedded_features(embedding: nn.Module | None, context_features: int) -> int:
    """How many numbers an embedding answers with for a context of F; F itself without one."""
    if embedding is None:
        return context_features
    # A copy: batch statistics and random states of the module itself stay what they are.
    probe = copy.deepcopy(embedding).eval()
    like = next(probe.parameters(), torch.empty(0))
    return probe(like.new_zeros(1, context_features)).shape[-1]


def describe_embedding(embedding: nn.Module | None) -> dict[str, Any] | None:
    """What `build_embedding` builds the same network from. Raises TypeError for a module of one's own."""
    if embedding is None:
        return None
    if type(embedding) is not MLP:
        raise TypeError(f"embedding: expected an MLP for a config, found {type(embedding).__name__}")
    return embedding.config
