"""Models of FrEIA: the same numbers from couplings of which one operation takes the place of many."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees, assert_same
from torch import Tensor, nn

import fastgen
from fastgen.interop import registry

pytest.importorskip("FrEIA", reason="FrEIA is not installed")

from FrEIA import framework, modules

DTYPES = [torch.float32, torch.float64]
BLOCKS = {
    "RNVP": (modules.RNVPCouplingBlock, {}),
    "GLOW": (modules.GLOWCouplingBlock, {"clamp_activation": "TANH", "clamp": 1.3}),
    "one-sided": (modules.AffineCouplingOneSided, {"clamp_activation": "SIGMOID"}),
    "all in one": (modules.AllInOneBlock, {}),
    "all in one, permuted before": (modules.AllInOneBlock, {"reverse_permutation": True}),
}


@pytest.fixture(autouse=True)
def small_blocks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter: Any = next(iter(registry._classes("FrEIA").values())).__module__
    monkeypatch.setattr(f"{adapter}.ELEMENTS_FROM", 0)
    monkeypatch.setattr(f"{adapter}.GRADIENTS_FROM", 0)


def linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))


def convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 8, 1), nn.ReLU(), nn.Conv2d(8, outputs, 1))


def flow(block: Any, dims: tuple[int, ...] = (5,), **options: Any) -> Any:
    torch.manual_seed(0)
    np.random.seed(0)  # whose permutations the blocks draw
    network = framework.SequenceINN(*dims)
    for _ in range(2):
        network.append(block, subnet_constructor=linear if len(dims) == 1 else convolution, **options)
    return network.requires_grad_()  # permutations too


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [(5,), (4, 3, 2)])
@pytest.mark.parametrize(("block", "options"), BLOCKS.values(), ids=BLOCKS)
def test_couplings_agree_in_both_directions(
    block: Any, options: dict[str, Any], dims: tuple[int, ...], dtype: torch.dtype
) -> None:
    model, x = flow(block, dims, **options), 0.5 * torch.randn(7, *dims)
    assert_agrees(model, lambda m: [*m(x.to(dtype)), *m(x.to(dtype), rev=True)], (block.__name__,), dtype)


def test_learned_permutations_agree() -> None:
    # In float64: the gradients of reflections lose digits in any order of the same sums.
    model, x = flow(modules.AllInOneBlock, learned_householder_permutation=2), torch.randn(7, 5, dtype=torch.float64)
    assert_agrees(model, lambda m: [*m(x), *m(x, rev=True)], ("AllInOneBlock",), torch.float64)


def test_conditions_agree() -> None:
    x, c = torch.randn(7, 5), torch.randn(7, 3)
    for block, _ in BLOCKS.values():
        model = flow(block, cond=0, cond_shape=(3,))
        assert_agrees(model, lambda m: [*m(x, c=[c]), *m(x, c=[c], rev=True)], (block.__name__,), torch.float32)


def test_functions_of_one_s_own_for_clamping_agree() -> None:
    model, x = flow(modules.GLOWCouplingBlock, clamp_activation=lambda u: u / (1 + u.abs())), torch.randn(7, 5)
    assert_agrees(model, lambda m: [*m(x)], ("GLOWCouplingBlock",), torch.float32)


@pytest.mark.parametrize(
    ("block", "options", "reason"),
    [
        (modules.AllInOneBlock, {"gin_block": True}, "volume-preserving"),
        (modules.GINCouplingBlock, {}, "not covered"),
        (modules.NICECouplingBlock, {}, "not covered"),
    ],
)
def test_others_are_left_with_a_reason(block: Any, options: dict[str, Any], reason: str) -> None:
    model, x = flow(block, **options), torch.randn(7, 5)
    with pytest.warns(UserWarning, match=reason):
        fast = fastgen.accelerate(copy.deepcopy(model))
    assert type(fast.module_list[0]) is block
    assert_same([fast(x)[0]], [model(x)[0]], 0)


def test_half_precision_and_errors_stay_the_library_s() -> None:
    for block, _ in BLOCKS.values():
        model = flow(block)
        fast, x = fastgen.accelerate(copy.deepcopy(model)), torch.randn(7, 5)
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = fast(x), model(x)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b)
        for m in (model, fast):
            with pytest.raises(RuntimeError):
                m(torch.randn(7, 6))


def test_it_copies_loads_and_restores() -> None:
    for block, _ in BLOCKS.values():
        model, x = flow(block), torch.randn(7, 5)
        fast = fastgen.accelerate(copy.deepcopy(model))
        assert list(fast.state_dict()) == list(model.state_dict())
        expected: tuple[Tensor, Tensor] = model(x)
        for other in (copy.deepcopy(fast), fastgen.accelerate(fast), fastgen.restore(copy.deepcopy(fast))):
            assert_same(other(x), expected)
        assert [type(m) for m in fastgen.restore(fast).modules()] == [type(m) for m in model.modules()]
