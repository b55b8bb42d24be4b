from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support import SCALE_MAPS

from fastgen.reference import ScaleMap

FORMULAS: dict[str, Callable[[float], float]] = {
    "identity": lambda a: a,
    "softplus": lambda a: math.log(math.log1p(math.exp(a))),
    "softplus_eps": lambda a: math.log(math.log1p(math.exp(a)) + 1e-3),
    "sigmoid": lambda a: -math.log1p(math.exp(-a - 2)),
    "sigmoid_eps": lambda a: math.log(1 / (1 + math.exp(-a - 2)) + 1e-3),
    "soft_clip": lambda a: a / (1 + abs(a / math.log(1000))),
    "tanh": lambda a: 2 * math.tanh(a / 2),
    "clamp": lambda a: min(max(a, -1.0), 0.5),
    "clamp_straight": lambda a: min(max(a, -1.0), 0.5),
}


@pytest.mark.parametrize("kind", SCALE_MAPS)
def test_values(kind: str) -> None:
    a = torch.linspace(-17, 17, 101, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[kind](float(v)) for v in a], dtype=torch.float64)
    torch.testing.assert_close(SCALE_MAPS[kind](a), expected, rtol=1e-14, atol=1e-14)


# The gradient of clamp_straight is not that of its value, by definition.
@pytest.mark.parametrize("kind", [k for k in SCALE_MAPS if k != "clamp_straight"])
def test_gradients(kind: str) -> None:
    a = torch.linspace(-25, 25, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SCALE_MAPS[kind], a)
    assert torch.autograd.gradgradcheck(SCALE_MAPS[kind], a)


def test_clamps_on_and_beyond_their_edges() -> None:
    a = torch.tensor([-2.0, -1.0, 0.0, 0.5, 2.0], requires_grad=True)
    for kind, expected in (("clamp", [0.0, 1.0, 1.0, 1.0, 0.0]), ("clamp_straight", [1.0] * 5)):
        assert torch.autograd.grad(SCALE_MAPS[kind](a).sum(), a)[0].tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["softplus", "sigmoid"])
def test_without_eps_the_far_left_is_linear(kind: str, dtype: torch.dtype) -> None:
    a = torch.tensor([-1e3, -800.0, -200.0], dtype=dtype, requires_grad=True)
    s = SCALE_MAPS[kind](a)
    assert torch.equal(s, a + 2 if kind == "sigmoid" else a)
    assert torch.autograd.grad(s.sum(), a)[0].tolist() == [1.0] * 3


def test_softplus_is_smooth_where_its_formula_changes() -> None:
    a = torch.tensor([-18.0 - 1e-9, -18.0 + 1e-9], dtype=torch.float64, requires_grad=True)
    s = SCALE_MAPS["softplus"](a)
    assert float(s[1] - s[0]) == pytest.approx(2e-9, rel=1e-5)
    left, right = torch.autograd.grad(s.sum(), a)[0].tolist()
    assert left == pytest.approx(right, rel=1e-14)


@pytest.mark.parametrize("bound", [("soft_clip", math.log(1000)), ("tanh", 2.0)])
def test_bounded_maps_stay_within_c(bound: tuple[str, float]) -> None:
    kind, c = bound
    a = torch.tensor([-1e30, -50.0, 50.0, 1e30], dtype=torch.float64)
    assert bool((SCALE_MAPS[kind](a).abs() <= c).all())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("identity", (0, 0.0, 0.0)),
        ("softplus", (1, 0.0, 0.0)),
        ("softplus_eps", (1, 1e-3, 0.0)),
        ("sigmoid_eps", (2, 1e-3, 0.0)),
        ("soft_clip", (3, math.log(1000), 0.0)),
        ("tanh", (4, 2.0, 0.0)),
        ("clamp", (5, -1.0, 0.5)),
        ("clamp_straight", (6, -1.0, 0.5)),
    ],
)
def test_code(kind: str, code: tuple[int, float, float]) -> None:
    assert SCALE_MAPS[kind].code == code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "exp"}, "kind: expected one of"),
        ({"kind": "softplus", "eps": -1e-3}, "eps: "),
        ({"kind": "softplus", "eps": math.nan}, "eps: "),
        ({"kind": "tanh", "c": 1.0, "eps": 1e-3}, "eps: "),
        ({"kind": "soft_clip"}, "c: expected a positive number"),
        ({"kind": "soft_clip", "c": 0.0}, "c: expected a positive number"),
        ({"kind": "identity", "c": 1.0}, "c: expected None"),
        ({"kind": "clamp", "lo": 0.0}, "lo, hi: expected two numbers"),
        ({"kind": "tanh", "c": 1.0, "lo": 0.0, "hi": 1.0}, "lo, hi: expected None"),
        ({"kind": "clamp", "lo": 1.0, "hi": 0.0}, "lo: expected at most hi"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleMap(**options)  # type: ignore[arg-type]
