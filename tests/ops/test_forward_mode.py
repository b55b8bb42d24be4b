"""Forward mode is refused, also where no gradients are wanted: a kernel would drop the tangent without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from fastgen import flows, ops

BLOCK = flows.MaskedAutoregressiveTransform(4, hidden_features=(8,)).requires_grad_(False)
HALF = torch.tensor([True, False, True, False])
VECTORS, NUMBERS = torch.ones(2, 4), torch.ones(2)

CALLS: dict[str, Callable[[Tensor], object]] = {
    "masked_mlp": lambda x: BLOCK.made(x),
    "masked_autoregressive": lambda x: BLOCK(x),
    "masked_autoregressive_log_prob": BLOCK.normal_log_prob,
    "affine_autoregressive": lambda x: ops.affine_autoregressive(x, x, x),
    "autoregressive_inverse": lambda x: BLOCK.inverse(x),
    "affine_coupling": lambda x: ops.affine_coupling(x, x, x, HALF),
    "additive_coupling": lambda x: ops.additive_coupling(x, x, HALF),
    "planar": lambda x: ops.planar(x, VECTORS, VECTORS, NUMBERS),
    "planar_inverse": lambda x: ops.planar_inverse(x, VECTORS, VECTORS, NUMBERS),
    "radial": lambda x: ops.radial(x, VECTORS, NUMBERS, NUMBERS),
    "gaussian_log_prob": ops.gaussian_log_prob,
    "gaussian_mixture_log_prob": lambda x: ops.gaussian_mixture_log_prob(x, NUMBERS, VECTORS, VECTORS),
    "gaussian_rsample_kl": lambda x: ops.gaussian_rsample_kl(x, x),
    "bernoulli_log_prob": lambda x: ops.bernoulli_log_prob(x, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_refused(name: str) -> None:
    x = torch.randn(3, 4)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        CALLS[name](forward_ad.make_dual(x, torch.ones_like(x)))
