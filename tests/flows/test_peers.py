"""The same numbers as other libraries, with their weights copied in."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fastgen.flows import Composed, MaskedAutoregressiveTransform, Permutation, Transform
from fastgen.ops import ScaleMap

# Where the hidden width is a multiple of the number of degrees, ours are the others' round-robin degrees in order.
FEATURES, HIDDEN = 6, 30


def copy_layers(ours: MaskedAutoregressiveTransform, theirs: list[nn.Linear], out_order: Tensor) -> None:
    """Copies weights and biases, hidden units sorted by degree, the outputs of the last layer in `out_order`."""
    units = torch.arange(ours.made.features)
    with torch.no_grad():
        for i, (layer, source) in enumerate(zip(ours.made.layers, theirs, strict=True)):
            n = len(set(ours.made.network.layers[0].out_degrees))
            outputs = out_order if i == len(theirs) - 1 else (torch.arange(HIDDEN) % n).argsort(stable=True)
            layer.weight.copy_(source.weight[outputs][:, units])
            layer.bias.copy_(source.bias[outputs])
            units = outputs


@pytest.fixture
def zuko():  # type: ignore[no-untyped-def]
    """zuko, whose import switches the validation of torch.distributions off for the process."""
    before = torch.distributions.Distribution._validate_args
    yield pytest.importorskip("zuko", reason="zuko is not installed")
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture
def nflows() -> ModuleType:
    pytest.importorskip("nflows", reason="nflows is not installed")
    from nflows.flows import autoregressive

    return autoregressive


@pytest.mark.parametrize("context_features", [0, 3])
def test_equals_zuko(context_features: int, zuko) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    theirs = zuko.flows.MAF(FEATURES, context_features, transforms=3, hidden_features=(HIDDEN, HIDDEN)).double()
    blocks = []
    for i, transform in enumerate(theirs.transform.transforms):
        block = MaskedAutoregressiveTransform(
            FEATURES,
            hidden_features=(HIDDEN, HIDDEN),
            context_features=context_features,
            order="reversed" if i % 2 else "natural",
            form="divide",
        ).double()
        layers = [layer for layer in transform.hyper if isinstance(layer, nn.Linear)]
        if context_features:
            n = len(set(block.made.network.layers[0].out_degrees))
            units = (torch.arange(HIDDEN) % n).argsort(stable=True)
            block.made.context.weight.data.copy_(layers[0].weight[units][:, FEATURES:])
        copy_layers(block, layers, torch.arange(2 * FEATURES))
        blocks.append(block)
    ours = Composed(blocks)
    x = torch.randn(9, FEATURES, dtype=torch.float64)
    context = torch.randn(9, context_features, dtype=torch.float64) if context_features else None
    torch.testing.assert_close(ours.normal_log_prob(x, context), theirs(context).log_prob(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("residual", [False, True])
def test_equals_nflows(residual: bool, nflows: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = nflows.MaskedAutoregressiveFlow(
        FEATURES, HIDDEN, num_layers=3, num_blocks_per_layer=2, use_residual_blocks=residual
    ).double()
    # nflows answers [scale, shift] for each feature.
    swapped = torch.arange(2 * FEATURES).view(-1, 2).flip(1).flatten()
    ours: list[Transform] = []
    for transform in theirs._transform._transforms:
        if not hasattr(transform, "autoregressive_net"):
            ours.append(Permutation.reverse(FEATURES))
            continue
        net = transform.autoregressive_net
        block = MaskedAutoregressiveTransform(
            FEATURES,
            hidden_features=(HIDDEN,) * (2 if residual else 3),
            residual=residual,
            scale_map=ScaleMap("softplus", eps=1e-3),
            form="divide",
        ).double()
        inner = [layer for b in net.blocks for layer in (b.linear_layers if residual else [b.linear])]
        copy_layers(block, [net.initial_layer, *inner, net.final_layer], swapped)
        ours.append(block)
    x = torch.randn(9, FEATURES, dtype=torch.float64)
    # torch's softplus, which nflows takes, is linear above 20: an error of 2e-9.
    torch.testing.assert_close(Composed(ours).normal_log_prob(x), theirs.log_prob(x), rtol=1e-8, atol=1e-8)
