"""A whole MADE network: a chain of masked linear layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .activations import ACTIVATIONS, activation_name
from .masked_linear import masked_linear


@dataclass(frozen=True)
class MaskedLayer:
    """One masked linear layer of a network.

    `activation` is applied after the layer. `residual` is the index of an earlier layer whose sum before its
    activation is added to this layer's, before this one's activation.
    """

    in_degrees: tuple[int, ...]
    out_degrees: tuple[int, ...]
    strict: bool = False
    activation: str = "identity"
    residual: int | None = None


@dataclass(frozen=True, eq=False)
class MaskedNetwork:
    """What a masked network is made of, without its parameters.

    `direct` adds a strict masked linear map of the inputs, without bias, to the last layer's sum.
    `outputs` is P, the number of outputs per feature: the last layer has P outputs of each feature's degree, in a row.

    Its parameters are a flat list: weight and bias of every layer in order (a bias may be None), then the weight of the
    direct connections where there are any. `parameter_shapes` are their shapes, in that order.
    """

    layers: tuple[MaskedLayer, ...]
    direct: bool = False
    outputs: int = 1
    parameter_shapes: tuple[tuple[int, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: expected at least one layer, found none")
        for i, layer in enumerate(self.layers):
            activation_name(layer.activation)
            if i and layer.in_degrees != self.layers[i - 1].out_degrees:
                raise ValueError(f"layers[{i}].in_degrees: expected the out_degrees of the layer before")
            if layer.residual is not None and not 0 <= layer.residual < i:
                raise ValueError(f"layers[{i}].residual: expected an earlier layer's index, found {layer.residual}")
            if layer.residual is not None and self.layers[layer.residual].out_degrees != layer.out_degrees:
                raise ValueError(f"layers[{i}].residual: expected a layer of the same out_degrees")
        if self.layers[-1].activation != "identity":
            raise ValueError(f"layers[-1].activation: expected identity, found {self.layers[-1].activation}")
        if self.outputs < 1 or len(self.layers[-1].out_degrees) % self.outputs:
            raise ValueError(f"outputs: expected a divisor of the last layer's width, found {self.outputs}")
        # Once: every call compares its parameters with them.
        object.__setattr__(self, "parameter_shapes", tuple(self._shapes()))

    @property
    def features(self) -> int:
        return len(self.layers[0].in_degrees)

    @property
    def parameter_count(self) -> int:
        """The length of the flat list of parameters."""
        return 2 * len(self.layers) + self.direct

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        for layer in self.layers:
            yield len(layer.out_degrees), len(layer.in_degrees)
            yield (len(layer.out_degrees),)
        if self.direct:
            yield len(self.layers[-1].out_degrees), self.features


def masked_mlp(
    x: Tensor, network: MaskedNetwork, params: Sequence[Tensor | None], *, context_terms: Tensor | None = None
) -> Tensor:
    """All masked layers, activations, residual and direct connections of a MADE network.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation".

    Args:
        x: (..., D), floating.
        network: the description of the network.
        params: its parameters as a flat list, see `MaskedNetwork`.
        context_terms: (..., H), broadcastable to the batch, added to the first layer's sum: a context's part.

    Returns:
        (..., D', P) with P = `network.outputs` and D' P the last layer's width.
    """

    def degrees(values: tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64)

    def weight(i: int) -> Tensor:
        w = params[i]
        if w is None:
            raise TypeError(f"params[{i}]: expected a tensor, found None")
        return w

    sums: list[Tensor] = []
    h = x
    for i, layer in enumerate(network.layers):
        s = masked_linear(
            h, weight(2 * i), params[2 * i + 1], degrees(layer.in_degrees), degrees(layer.out_degrees), strict=layer.strict
        )
        if i == 0 and context_terms is not None:
            s = s + context_terms
        if layer.residual is not None:
            s = s + sums[layer.residual]
        if i == len(network.layers) - 1 and network.direct:
            ends = degrees(network.layers[0].in_degrees), degrees(layer.out_degrees)
            s = s + masked_linear(x, weight(len(params) - 1), None, *ends, strict=True)
        sums.append(s)
        h = ACTIVATIONS[layer.activation](s)
    return h.unflatten(-1, (-1, network.outputs))
