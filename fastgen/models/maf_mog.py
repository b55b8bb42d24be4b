"""Masked autoregressive flow over a MADE with mixture conditionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..flows import MAF, Distribution, Transform
from ..flows.autoregressive import SCALE_MAP
from ..flows.autoregressive_flow import orders, settled_seed
from ..flows.embedding import build_embedding, embedded_features
from ..ops import ScaleMap, _check
from .mixture_made import MixtureMADE


class MixtureBase(Distribution):
    """A MixtureMADE as the base of a flow."""

    def __init__(self, made: MixtureMADE) -> None:
        super().__init__()
        self.features = made.features
        self.made = made

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.made.log_prob(z, context)

    @torch.no_grad()
    def sample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        shape = tuple(shape)
        if context is None:
            return self.made.sample(shape, generator=generator)
        _check.batch_broadcastable(context, "context", shape)
        first = len(shape) - context.dim() + 1
        return self.made.sample(shape[:first], context.expand(*shape[first:], -1), generator=generator)


class MAFMoG(MAF):
    """A masked autoregressive flow whose base is a MADE with mixture-of-Gaussians conditionals: MAF MoG.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", section 4. The base's network is of the same
    size as those of the transforms, and its order is the one that a further transform would have. Its samples have no
    gradients.

    Args:
        features: D.
        components: K, how many Gaussians each conditional of the base has.
        preprocess, batch_norm, standardise_context: for the transforms, as in `fastgen.flows.MAF`.
        context_features, hidden_features, order, scale_map, embedding, seed, options: for transforms and base, as there.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    def __init__(
        self,
        features: int,
        *,
        components: int = 10,
        context_features: int = 0,
        transforms: int = 5,
        hidden_features: Sequence[int] = (512, 512),
        order: str = "reverse",
        scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP,
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        batch_norm: bool = False,
        embedding: nn.Module | Mapping[str, Any] | None = None,
        standardise_context: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        seed = settled_seed(seed, order, options)
        network = build_embedding(embedding, context_features)
        shared: dict[str, Any] = {
            "hidden_features": hidden_features,
            "scale_map": scale_map,
            "device": device,
            "dtype": dtype,
            **options,
        }
        base = MixtureMADE(
            features,
            components=components,
            context_features=embedded_features(network, context_features),
            masks=1,
            **orders(order, seed, transforms + 1)[-1],
            **shared,
        )
        super().__init__(
            features,
            context_features=context_features,
            transforms=transforms,
            order=order,
            preprocess=preprocess,
            base=MixtureBase(base),
            batch_norm=batch_norm,
            embedding=network,
            standardise_context=standardise_context,
            seed=seed,
            **shared,
        )
        self._components = components

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same flow again; its state_dict holds all numbers.

        Raises TypeError where `preprocess` or `embedding` is of one's own.
        """
        return {**self.stack_config, "components": self._components}
