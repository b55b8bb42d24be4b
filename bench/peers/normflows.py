"""normflows: Stimper et al. 2023, "normflows: A PyTorch Package for Normalizing Flows"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgen.ops import ScaleMap

from ..networks import Sizes
from .coupled import CoupledPeer, Network
from .masked import Block, MaskedPeer


def maf(sizes: Sizes) -> MaskedPeer:
    """In `Reverse`, which makes a density one pass of each network; there are no permutations between."""
    return _masked(sizes, slow=False)


def maf_as_shipped(sizes: Sizes) -> MaskedPeer:
    """Its networks read the noise: a density is D passes of each."""
    return _masked(sizes, slow=True)


def _masked(sizes: Sizes, slow: bool) -> MaskedPeer:
    import normflows as nf

    layers = [
        nf.flows.MaskedAffineAutoregressive(sizes.features, sizes.hidden, num_blocks=1, use_residual_blocks=False)
        for _ in range(sizes.transforms)
    ]
    # Its flows go from noise to data, the last one first in a density.
    stack = layers if slow else [nf.flows.Reverse(layer) for layer in layers]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(sizes.features, trainable=False), stack)
    blocks = [_block(layer.autoregressive_net, sizes.features) for layer in reversed(layers)]

    def inverse(model: Any, z: Tensor) -> Tensor:
        for flow in model.flows:
            z, _ = flow(z)
        return z

    return MaskedPeer(
        model,
        blocks,
        ScaleMap("sigmoid", eps=1e-3),
        lambda model, x: model.log_prob(x),
        inverse,
        lambda model, n: model.sample(n),
        slow=slow,
        compilable=None if slow else lambda model: model.log_prob,
    )


def _block(net: Any, features: int) -> Block:
    columns = torch.arange(features)
    # Its rows are pairs of a raw scale and a shift; after the first layer there is no activation.
    rows = torch.stack((2 * columns + 1, 2 * columns), -1).flatten()
    layers = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
    return Block(layers, ("identity", "relu", "identity"), columns, rows)


def realnvp(features: int, transforms: int) -> CoupledPeer:
    import normflows as nf

    networks = [Network(features // 2, features) for _ in range(transforms)]
    blocks = [
        nf.flows.AffineCouplingBlock(network, scale_map="exp", split_mode="channel_inv" if i % 2 else "channel")
        for i, network in enumerate(networks)
    ]
    stack = [nf.flows.Reverse(block) for block in reversed(blocks)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), stack)
    order = torch.arange(features).view(-1, 2).t().flatten()
    return CoupledPeer(model, networks, lambda model, x: model.log_prob(x), ScaleMap(), order)
