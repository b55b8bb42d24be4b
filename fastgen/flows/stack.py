"""Flows of a given kind of transform: preprocessing, the transforms, a base and what they see of a context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from .base import Distribution
from .elementwise import Standardise
from .embedding import build_embedding, describe_embedding, embedded_features
from .flow import Flow
from .labels import ClassEmbedding
from .registry import build_base, describe_base, described, preprocessing
from .transform import Composed, Transform


def placed_embedding(
    embedding: nn.Module | Mapping[str, Any] | None, context_features: int, **placed: Any
) -> tuple[nn.Module | None, int]:
    """The network that a flow's argument means, on its device, and how many features of a context are seen through it."""
    network = build_embedding(embedding, context_features)
    if network is not None:
        network.to(**placed)
    return network, embedded_features(network, context_features)


class StackFlow(Flow):
    """A base distribution seen through preprocessing and then through transforms of its own.

    Args:
        features: D.
        own: the transforms after the preprocessing.
        config: the keyword arguments, as JSON knows them, that the other arguments follow from.
        context_features, preprocess, base, standardise_context, device, dtype: see `AutoregressiveFlow`.
        embedding, seen: what `placed_embedding` gave.
    """

    transform: Composed

    def __init__(
        self,
        features: int,
        own: Sequence[Transform],
        config: Mapping[str, Any],
        *,
        context_features: int,
        preprocess: Iterable[Transform | Mapping[str, Any]],
        base: Distribution | Mapping[str, Any] | None,
        embedding: nn.Module | None,
        seen: int,
        standardise_context: bool,
        **placed: Any,
    ) -> None:
        if standardise_context and isinstance(embedding, ClassEmbedding):
            raise ValueError("standardise_context: expected False with a ClassEmbedding, whose context is a label, found True")
        before = [preprocessing(t).to(**placed) for t in preprocess]
        super().__init__(build_base(base, features, seen, **placed), Composed([*before, *own]), embedding)
        if standardise_context:
            self.standardise_context = Standardise(context_features).to(**placed)
        self._own = len(own)
        self._config = {**config, "context_features": context_features}

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same flow again; its state_dict holds all numbers.

        Raises TypeError where `preprocess`, `base` or `embedding` is of one's own.
        """
        return {**self.stack_config, "base": describe_base(self.base)}

    @property
    def stack_config(self) -> dict[str, Any]:
        """`config` but for the base."""
        return {
            **self._config,
            "preprocess": [described(t) for t in list(self.transform)[: -self._own]],
            "embedding": describe_embedding(self.embedding),
            "standardise_context": self.standardise_context is not None,
        }
