"""nflows: Durkan et al. 2020, "nflows: normalizing flows in PyTorch"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgen.ops import ScaleMap

from ..networks import Sizes
from .coupled import CoupledPeer, Network
from .masked import Block, MaskedPeer


def maf(sizes: Sizes) -> MaskedPeer:
    """The features are reversed before each transform."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

    layers: list[Any] = []
    for _ in range(sizes.transforms):
        made = MaskedAffineAutoregressiveTransform(sizes.features, sizes.hidden, num_blocks=1, use_residual_blocks=False)
        layers += [ReversePermutation(sizes.features), made]
    model = Flow(CompositeTransform(layers), StandardNormal([sizes.features]))
    blocks = [_block(made.autoregressive_net, sizes.features, i % 2 == 0) for i, made in enumerate(layers[1::2])]

    def inverse(model: Any, z: Tensor) -> Tensor:
        return model._transform.inverse(z.flip(-1) if sizes.transforms % 2 else z)[0]

    return MaskedPeer(
        model,
        blocks,
        ScaleMap("softplus", eps=1e-3),
        lambda model, x: model.log_prob(x),
        inverse,
        lambda model, n: model.sample(n),
        compilable=lambda model: model.log_prob,
    )


def _block(net: Any, features: int, reversed_: bool) -> Block:
    columns = torch.arange(features)
    columns = columns.flip(0) if reversed_ else columns
    # Its rows are pairs of a raw scale and a shift.
    rows = torch.stack((2 * columns + 1, 2 * columns), -1).flatten()
    layers = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
    return Block(layers, ("relu", "relu", "identity"), columns, rows)


def realnvp(features: int, transforms: int) -> CoupledPeer:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    first = torch.arange(features) >= features // 2
    couplings = [AffineCouplingTransform((~first if i % 2 else first).int(), Network) for i in range(transforms)]
    model = Flow(CompositeTransform(couplings), StandardNormal([features]))
    networks = [coupling.transform_net for coupling in couplings]
    order = torch.arange(features)
    return CoupledPeer(model, networks, lambda model, x: model.log_prob(x), ScaleMap("sigmoid", eps=1e-3), order)
