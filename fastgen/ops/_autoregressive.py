"""What a network has to be for its outputs to be solved feature by feature."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..reference import MaskedNetwork


def check_autoregressive(network: MaskedNetwork, outputs: int, inputs: int = 1) -> None:
    """Raises ValueError unless the network has so many outputs and inputs of each feature, side by side.

    The outputs have to be in the order of the features, and to see features of lower degree only.
    """
    # A compiler would trace through the cache.
    if not torch.compiler.is_compiling():
        _check(network, outputs, inputs)


@lru_cache(maxsize=256)
def _check(network: MaskedNetwork, outputs: int, inputs: int) -> None:
    columns, last = network.layers[0].in_degrees, network.layers[-1]
    degrees = columns[::inputs]
    if columns != tuple(d for d in degrees for _ in range(inputs)):
        raise ValueError(f"network: expected {inputs} inputs of each feature's degree, side by side")
    if network.outputs != outputs or last.out_degrees != tuple(d for d in degrees for _ in range(outputs)):
        raise ValueError(f"network: expected {outputs} outputs of each feature's degree, in the order of the features")
    # What a layer that is not strict lets through keeps its degree; an output that sees its own is no function of the others.
    if not any(layer.strict for layer in network.layers):
        raise ValueError("network: expected outputs that see features of lower degree only, found no strict layer")
