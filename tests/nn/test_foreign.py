from __future__ import annotations

import random

import pytest
import torch
from networks import network, parameters
from torch import Tensor

from fastgen import ops, reference
from fastgen.nn import network_of_masks
from fastgen.reference import MaskedNetwork, degree_mask

SOFT_CLIP = ops.ScaleMap("soft_clip", c=2.0)


def masks_of(net: MaskedNetwork, keep: float = 1.0, seed: int = 0) -> list[Tensor]:
    """The masks of a network, less some of their entries: no staircase any more."""
    generator = torch.Generator().manual_seed(seed)
    masks = [degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), layer.strict) for layer in net.layers]
    return [mask.bool() & (torch.rand(mask.shape, generator=generator) < keep) for mask in masks]


def shuffled(net: MaskedNetwork, masks: list[Tensor], seed: int = 0) -> list[Tensor]:
    """The masks with the units of each hidden layer in another order; along a residual stream the same for all."""
    rng, orders = random.Random(seed), []
    for i, layer in enumerate(net.layers[:-1]):
        own = list(range(len(layer.out_degrees)))
        rng.shuffle(own)
        orders.append(orders[layer.residual] if layer.residual is not None else own)
        masks[i] = masks[i][orders[i]]
        masks[i + 1] = masks[i + 1][:, orders[i]]
    return masks


CASES = {
    "plain": network((3, 1, 4, 2, 5), (20, 30)),
    "residual": network((3, 1, 4, 2, 5), (20,) * 5, residual=True),
    "no hidden layer": network((2, 3, 1), ()),
    "one feature": network((1,), (4,)),
}


@pytest.mark.parametrize("keep", [1.0, 0.5], ids=["whole", "thinned"])
@pytest.mark.parametrize("name", CASES)
def test_the_network_multiplied_by_its_masks_is_inverted(name: str, keep: float) -> None:
    net = CASES[name]
    masks = shuffled(net, masks_of(net, keep))
    described = network_of_masks(
        masks,
        activations=[layer.activation for layer in net.layers],
        residuals=[layer.residual for layer in net.layers],
    )
    params = parameters(net)
    for i, mask in enumerate(masks):
        params[2 * i] = params[2 * i] * mask
    w = torch.randn(9, net.features, dtype=torch.float64)
    # Nothing is lost: the description's own masks leave the multiplied weights what they are.
    for layer, mask in zip(described.layers, masks, strict=True):
        allowed = degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), layer.strict).bool()
        assert bool((allowed | ~mask).all())
    v, log_det = ops.autoregressive_inverse(w, described, params, scale_map=SOFT_CLIP)
    shift, raw = reference.masked_mlp(v, described, params).unbind(-1)
    torch.testing.assert_close((v - shift) * (-SOFT_CLIP(raw)).exp(), w, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(log_det, SOFT_CLIP(raw).sum(-1), rtol=1e-11, atol=1e-11)


def test_direct_connections_count() -> None:
    direct = torch.tensor([[0, 1], [0, 1], [0, 0], [0, 0]])
    net = network_of_masks([torch.zeros(3, 2), torch.zeros(4, 3)], activations=["relu", "identity"], direct=direct)
    assert net.direct and net.layers[0].in_degrees == (2, 1)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([torch.ones(4, 2)], r"masks: expected an autoregressive network, found features \[0, 1\] that depend on each other"),
        ([torch.ones(4, 3)], r"masks\[0\]: expected 6 rows, found 4"),
        ([torch.ones(5, 2), torch.ones(4, 4)], r"masks\[1\]: expected shape \(out, 5\), found \(4, 4\)"),
    ],
)
def test_masks_that_do_not_fit_are_named(masks: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network_of_masks(masks, activations=["relu"] * (len(masks) - 1) + ["identity"])
