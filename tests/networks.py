"""Masked networks that operations are tested with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgen.reference import MaskedLayer, MaskedNetwork


def network(
    order: Sequence[int],
    hidden: Sequence[int],
    outputs: int = 2,
    activation: str = "relu",
    lo: int = 0,
    direct: bool = False,
    residual: bool = False,
    inputs: int = 1,
) -> MaskedNetwork:
    """A MADE: hidden units equally spread over lo..D-1, residual blocks of two layers after the first."""
    layers, into = [], tuple(d for d in order for _ in range(inputs))
    for i, width in enumerate(hidden):
        units = tuple(lo + k * max(len(order) - lo, 1) // width for k in range(width))
        layers.append(
            MaskedLayer(into, units, activation=activation, residual=i - 2 if residual and i and i % 2 == 0 else None)
        )
        into = units
    layers.append(MaskedLayer(into, tuple(d for d in order for _ in range(outputs)), strict=True))
    return MaskedNetwork(tuple(layers), direct, outputs)


def parameters(net: MaskedNetwork, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5).to(dtype)

    shapes = [(len(layer.out_degrees), len(layer.in_degrees)) for layer in net.layers]
    params = [t for out, into in shapes for t in (draw(out, into), draw(out))]
    return params + ([draw(shapes[-1][0], net.features)] if net.direct else [])
