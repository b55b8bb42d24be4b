"""Networks of contexts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as networks
from ..nn.named import description_of, kind_of
from .checks import at_least_one, check_context
from .labels import ClassEmbedding


class MLP(networks.MLP):
    """The network `fastgen.nn.MLP` of a context (..., F), with `features` numbers for an answer.

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
        at_least_one(context_features=context_features, features=features)
        options: dict[str, Any] = {"hidden_features": hidden_features, "activation": activation}
        super().__init__(context_features, features, **options, device=device, dtype=dtype)

    @property
    def context_features(self) -> int:
        return self.in_features

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same network again."""
        hidden = [layer.out_features for layer in self.layers[:-1]]
        sizes = {"context_features": self.in_features, "features": self.out_features}
        return {**sizes, "hidden_features": hidden, "activation": self.activation}

    def forward(self, context: Tensor) -> Tensor:  # type: ignore[override]
        """context (..., F) -> (..., features)."""
        return super().forward(check_context(context, self.in_features))


EMBEDDINGS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (MLP, ClassEmbedding)}


def build_embedding(embedding: nn.Module | Mapping[str, Any] | None, context_features: int) -> nn.Module | None:
    """The network itself, or one of EMBEDDINGS: its name under "embedding", MLP where there is none, and its arguments.

    Raises ValueError for an unknown name, TypeError for anything else than a module or a dict.
    """
    if embedding is None or isinstance(embedding, nn.Module):
        return embedding
    if not isinstance(embedding, Mapping):
        raise TypeError(f"embedding: expected a module or a dict, found {type(embedding).__name__}")
    kind, options = kind_of({"embedding": "MLP", **embedding}, "embedding", "embedding", EMBEDDINGS)
    if kind is ClassEmbedding:
        if context_features != 1:
            raise ValueError(f"context_features: expected 1, the label, for a ClassEmbedding, found {context_features}")
        return kind(**options)
    return kind(**{"context_features": context_features, **options})


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
    return description_of(embedding, "embedding", "embedding", EMBEDDINGS)
