"""nflows: Durkan et al. 2020, "nflows: normalizing flows in PyTorch"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgen.nn import network_of_masks
from fastgen.ops import ScaleMap

from ..networks import Sizes
from .conditioned import ConditionedPeer
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


def sbi(sizes: Sizes, context: int) -> ConditionedPeer:
    """As sbi builds it: networks of tanh that read a context, the features permuted after each transform."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, RandomPermutation

    options: dict[str, Any] = {"context_features": context, "use_residual_blocks": False, "activation": torch.tanh}
    layers: list[Any] = []
    for _ in range(sizes.transforms):
        layers.append(MaskedAffineAutoregressiveTransform(sizes.features, sizes.hidden, num_blocks=2, **options))
        layers.append(RandomPermutation(sizes.features))
    nets = [made.autoregressive_net for made in layers[::2]]
    masks = [[net.initial_layer.mask, *(block.linear.mask for block in net.blocks), net.final_layer.mask] for net in nets]
    return ConditionedPeer(
        Flow(CompositeTransform(layers), StandardNormal([sizes.features])),
        [network_of_masks(each, activations=["tanh"] * 3 + ["identity"]) for each in masks],
        lambda model, x, context: model.log_prob(x, context),
        lambda model, z, context: model._transform.inverse(z, context)[0],
        lambda model, n, context: model.sample(n, context),
    )


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
