"""The models whose cost is measured against their sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgen import flows, models


class Sizes(NamedTuple):
    """width: of every hidden layer. depth: transforms of a flow, hidden layers of another model."""

    features: int
    width: int
    depth: int
    batch: int


class Swept(NamedTuple):
    """A model by its sizes.

    build: the model, placed as keywords say. rows: a batch of the data it is of. has_width: whether it has hidden layers.
    """

    build: Callable[..., nn.Module]
    rows: Callable[[Sizes], Tensor]
    has_width: bool = True

    def axes(self) -> list[str]:
        return [axis for axis in Sizes._fields if self.has_width or axis != "width"]


def _normal(sizes: Sizes) -> Tensor:
    return torch.randn(sizes.batch, sizes.features)


def _bits(sizes: Sizes) -> Tensor:
    return torch.randint(2, (sizes.batch, sizes.features)).float()


def _flow(kind: type[nn.Module], **options: Any) -> Callable[..., nn.Module]:
    def build(sizes: Sizes, **placed: Any) -> nn.Module:
        return kind(sizes.features, transforms=sizes.depth, hidden_features=(sizes.width,) * 2, **options, **placed)

    return build


def _network(kind: type[nn.Module], **options: Any) -> Callable[..., nn.Module]:
    def build(sizes: Sizes, **placed: Any) -> nn.Module:
        return kind(sizes.features, hidden_features=(sizes.width,) * sizes.depth, **options, **placed)

    return build


def _planar(sizes: Sizes, **placed: Any) -> nn.Module:
    return flows.PlanarFlow(sizes.features, transforms=sizes.depth, **placed)


MODELS = {
    "MAF": Swept(_flow(flows.MAF), _normal),
    "IAF": Swept(_flow(flows.IAF), _normal),
    "RealNVP": Swept(_flow(flows.RealNVP), _normal),
    "RealNVP, reversible": Swept(_flow(flows.RealNVP, reversible=True), _normal),
    "NICE": Swept(_flow(flows.NICE), _normal),
    "PlanarFlow": Swept(_planar, _normal, has_width=False),
    "VAE": Swept(_network(models.VAE), _bits),
    "GaussianMADE": Swept(_network(models.GaussianMADE), _normal),
    "MixtureMADE": Swept(_network(models.MixtureMADE), _normal),
    "BernoulliMADE": Swept(_network(models.BernoulliMADE), _bits),
}
