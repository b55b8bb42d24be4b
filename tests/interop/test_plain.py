"""Masked linear layers in plain PyTorch, and the sample and divergence of a variational autoencoder."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_agrees, assert_same
from torch import Tensor, nn

import fastgen
from fastgen.interop.plain import MOST_CHANGES

D, H, B = 5, 9, 7


class Masked(nn.Linear):
    """As most write it."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def set_mask(self, mask: Tensor) -> None:
        self.mask.data.copy_(mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


class Attribute(Masked):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        nn.Linear.__init__(self, inputs, outputs, bias)
        self.mask = torch.ones(outputs, inputs, dtype=torch.bool)


class Scaled(Masked):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Twice(Masked):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) + super().forward(y)


def set_masks(net: Any, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randperm(D, generator=generator)
    hidden = torch.randint(D - 1, (H,), generator=generator)
    net[0].set_mask(features <= hidden[:, None])
    net[2].set_mask(hidden < features[:, None])


def made(cls: type[Masked], **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(cls(D, H, **options), nn.ReLU(), cls(H, D, **options))
    set_masks(net)
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cls", [Masked, Attribute])
def test_masked_layers_agree(cls: type[Masked], bias: bool, dtype: torch.dtype) -> None:
    x = torch.randn(2, B, D, dtype=dtype)
    fast = assert_agrees(made(cls, bias=bias), lambda m: [m(x)], (cls.__name__,), dtype)
    assert isinstance(fast[0], cls) and type(fast[0]) is not cls


def test_masks_that_are_set_later_count_in_whichever_way_they_are_set() -> None:
    net = made(Masked)
    fast, x = fastgen.accelerate(copy.deepcopy(net)), torch.randn(B, D)
    for seed in range(MOST_CHANGES + 3):  # from some number on the layer's own code runs
        for m in (net, fast):
            set_masks(m, seed)
        assert_same([fast(x)], [net(x)])
    net[0].mask[0, 0] = fast[0].mask[0, 0] = 1 - float(net[0].mask[0, 0])  # type: ignore[index, operator]
    assert_same([fast(x)], [net(x)])


def test_copies_pickles_and_restored_modules_agree() -> None:
    net, x = made(Masked), torch.randn(B, D)
    fast = fastgen.accelerate(copy.deepcopy(net))
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert isinstance(other[0], Masked) and fastgen.accelerate_report(other).replaced
        assert_same([other(x)], [net(x)])
    fastgen.restore(fast)
    assert type(fast[0]) is Masked and fast[0].__dict__.keys() == net[0].__dict__.keys()


def test_compiled_layers_agree() -> None:
    net, x = made(Masked), torch.randn(B, D)
    fast = torch.compile(fastgen.accelerate(copy.deepcopy(net)), backend="aot_eager", fullgraph=True)
    for seed in (1, 2):
        set_masks(net, seed)
        set_masks(fast._orig_mod, seed)
        assert_same([fast(x)], [net(x)])


@pytest.mark.parametrize(
    ("cls", "reason"), [(Scaled, r"its forward is not F\.linear"), (Twice, "its forward takes more than rows")]
)
def test_other_forwards_are_left(cls: type[Masked], reason: str) -> None:
    layer = cls(D, H)
    with pytest.warns(UserWarning, match=reason):
        fastgen.accelerate(layer)
    assert type(layer) is cls


def test_masks_of_no_degrees_are_left() -> None:
    layer = Masked(D, D)
    layer.set_mask(torch.eye(D))
    with pytest.warns(UserWarning, match="its mask is not that of degrees"):
        fastgen.accelerate(layer)


def test_fastgen_s_own_layers_need_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fastgen.accelerate(fastgen.nn.MADE(D))
    assert "nothing that accelerate knows" in str(caught[0].message)


def test_sample_and_divergence_of_the_usual_lines() -> None:
    mean, log_var = torch.randn(2, B, D, dtype=torch.float64)
    z, kl = fastgen.ops.gaussian_rsample_kl(mean, log_var, seed=torch.tensor(3))
    noise = (z - mean) / (0.5 * log_var).exp()
    assert_same([mean + (0.5 * log_var).exp() * noise, kl], [z, -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1)])
