"""Pyro: Bingham et al. 2019, "Pyro: Deep Universal Probabilistic Programming"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastgen.ops import ScaleMap

from ..networks import Sizes
from .masked import Block, MaskedPeer


class _Flow(nn.Module):
    """The distribution of normal noise seen through transforms, with these as modules."""

    zero: Tensor
    one: Tensor

    def __init__(self, transforms: list[Any], features: int, slow: bool, validate: bool | None = None) -> None:
        from pyro.distributions import Normal, TransformedDistribution

        super().__init__()
        self.transforms: Any = nn.ModuleList(transforms)
        self.register_buffer("zero", torch.zeros(features))
        self.register_buffer("one", torch.ones(features))
        noise = Normal(self.zero, self.one, validate_args=validate).to_event(1)
        self.directed = transforms if slow else [transform.inv for transform in transforms]
        self.distribution = TransformedDistribution(noise, self.directed, validate_args=validate)

    def log_prob(self, x: Tensor) -> Tensor:
        # What a transform just computed it remembers, its inverse as well: a density of fresh data has to be computed.
        for transform in self.transforms:
            transform.clear_cache()
        return self.distribution.log_prob(x)

    def inverse(self, z: Tensor) -> Tensor:
        for transform in self.directed:
            z = transform(z)
        return z


def maf(sizes: Sizes) -> MaskedPeer:
    """The `.inv` of its transforms, which makes a density one pass of each network."""
    return _masked(sizes, slow=False)


def iaf(sizes: Sizes) -> MaskedPeer:
    """Its transforms as they are: they read the noise, and a density is D passes of each network."""
    return _masked(sizes, slow=True)


def _without_validation(model: Any) -> Callable[[Tensor], Tensor]:
    """The compiler refuses checks that branch on data."""
    return _Flow(list(model.transforms), len(model.zero), slow=False, validate=False).log_prob


def _masked(sizes: Sizes, slow: bool) -> MaskedPeer:
    from pyro.distributions.transforms import AffineAutoregressive
    from pyro.nn import AutoRegressiveNN

    natural: Any = torch.arange(sizes.features)
    nets = [
        AutoRegressiveNN(sizes.features, [sizes.hidden] * 2, permutation=natural.flip(0) if i % 2 else natural)
        for i in range(sizes.transforms)
    ]
    model = _Flow([AffineAutoregressive(net) for net in nets], sizes.features, slow)
    # All shifts, then all raw log-scales.
    rows = torch.stack((natural, natural + sizes.features), -1).flatten()
    blocks = [Block(list(net.layers), ("relu", "relu", "identity"), natural, rows) for net in reversed(nets)]
    return MaskedPeer(
        model,
        blocks,
        ScaleMap("clamp_straight", lo=-5.0, hi=3.0),
        lambda model, x: model.log_prob(x),
        lambda model, z: model.inverse(z),
        lambda model, n: model.distribution.sample((n,)),
        slow=slow,
        compilable=None if slow else _without_validation,
    )
