"""Masked autoregressive flows of other libraries, and the same flow as fastgen's with their masks and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgen.flows import Composed, Flow, Inverse, MaskedAutoregressiveTransform, StandardNormal, Transform
from fastgen.nn import network_of_masks
from fastgen.ops import MaskedLayer, MaskedNetwork, ScaleMap

from ..plain import mask_of


class Block(NamedTuple):
    """One network of masked layers, each with `weight`, `bias` and `mask`.

    activations: after each layer, the last the identity.
    columns: the feature of the data that each column of its input is.
    rows: of its outputs, for each feature of the data the shift's and the raw log-scale's, side by side.
    """

    layers: Sequence[Any]
    activations: Sequence[str]
    columns: Tensor
    rows: Tensor


@dataclass(frozen=True)
class MaskedPeer:
    """A flow of another library.

    blocks: its networks, in the order that data meet them; the flow's every parameter is one of theirs.
    scale_map: its map from the raw number to a log-scale s.
    log_prob: of the model and data.
    inverse: the data of the noise as fastgen's flow has it.
    sample: n samples.
    slow: whether its networks read the noise, so that a density takes it D passes: z_i = (x_i - mu_i) e^-s_i of the z before
        i; else z_i = x_i e^s_i + mu_i of the x before i.
    compilable: a density to compile, of the model; None where compiling would unroll D passes.
    """

    model: nn.Module
    blocks: Sequence[Block]
    scale_map: ScaleMap
    log_prob: Callable[[Any, Tensor], Tensor]
    inverse: Callable[[Any, Tensor], Tensor]
    sample: Callable[[Any, int], object]
    slow: bool = False
    compilable: Callable[[Any], Callable[[Tensor], Tensor]] | None = None

    def arranged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Its parameters' gradients, as `parameters` orders them, in the places that fastgen's flow has for them."""
        pieces = iter(tensors)
        return [t for block in self.blocks for t in _Arrangement(block)([next(pieces) for _ in range(2 * len(block.layers))])]

    @property
    def parameters(self) -> list[Tensor]:
        return [p for block in self.blocks for layer in block.layers for p in (layer.weight, layer.bias)]


def same_flow(peer: MaskedPeer, features: int) -> Flow:
    """fastgen's flow with the weights of another library's: the same density."""
    weight = peer.blocks[0].layers[0].weight
    transforms: Iterable[Transform] = (_same_transform(block, peer.scale_map, features) for block in peer.blocks)
    if peer.slow:
        transforms = (Inverse(transform) for transform in transforms)
    flow = Flow(StandardNormal(features), Composed(transforms))
    return flow.to(weight)


@torch.no_grad()
def _same_transform(block: Block, scale_map: ScaleMap, features: int) -> MaskedAutoregressiveTransform:
    """z_i = x_i e^s_i + mu_i, the masks and weights those of a block: hidden units in the order of their degrees."""
    arrangement = _Arrangement(block)
    transform = MaskedAutoregressiveTransform(features, network=arrangement.network, scale_map=scale_map, form="divide")
    params = arrangement([p for layer in block.layers for p in (layer.weight, layer.bias)])
    for own, given in zip(transform.made.params, params, strict=True):
        assert own is not None
        own.copy_(given)
    return transform


class _Arrangement:
    """Where the weights of a block go: features as the data have them, hidden units by degree, outputs side by side."""

    def __init__(self, block: Block) -> None:
        self.orders = [block.columns.argsort(), *(torch.arange(len(layer.bias)) for layer in block.layers[:-1]), block.rows]
        masks = [layer.mask.cpu() for layer in block.layers]
        network = network_of_masks(self._weights(masks), activations=block.activations)
        for i, layer in enumerate(network.layers[:-1]):
            self.orders[i + 1] = torch.tensor(layer.out_degrees).argsort(stable=True)
        self.network = _reordered(network, self.orders[1:-1])
        if not all(torch.equal(mask_of(d), m != 0) for d, m in zip(self.network.layers, self._weights(masks), strict=True)):
            raise ValueError("masks: expected those of an autoregressive network whose units are ordered by degrees")

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        weights = self._weights(tensors[::2])
        biases = [bias[order.to(bias.device)] for bias, order in zip(tensors[1::2], self.orders[1:], strict=True)]
        return [t for pair in zip(weights, biases, strict=True) for t in pair]

    def _weights(self, weights: Sequence[Tensor]) -> list[Tensor]:
        ends = zip(weights, self.orders, self.orders[1:], strict=False)
        return [w[rows.to(w.device)][:, columns.to(w.device)] for w, columns, rows in ends]


def _reordered(network: MaskedNetwork, orders: Sequence[Tensor]) -> MaskedNetwork:
    """The description with hidden units in other orders."""
    levels = [torch.tensor(layer.in_degrees) for layer in network.layers]
    levels[1:] = [level[order] for level, order in zip(levels[1:], orders, strict=True)]
    degrees = [*(tuple(level.tolist()) for level in levels), network.layers[-1].out_degrees]
    layers = [MaskedLayer(degrees[i], degrees[i + 1], layer.strict, layer.activation) for i, layer in enumerate(network.layers)]
    return MaskedNetwork(tuple(layers), outputs=network.outputs)
