"""Flows of zuko, converted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion import check_conversion, trained
from torch import nn

from fastgen.flows import Flow
from fastgen.interop import from_zuko

D = 5


@pytest.fixture(autouse=True)
def validation() -> Iterator[None]:
    """Importing zuko switches the validation of torch.distributions off for the process."""
    distribution = torch.distributions.Distribution
    before, constraints = distribution._validate_args, distribution.arg_constraints
    pytest.importorskip("zuko", reason="zuko is not installed")
    yield
    distribution._validate_args, distribution.arg_constraints = before, constraints


def over_normal(*layers: Any) -> Any:
    import zuko

    base = zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.randn(D), torch.rand(D) + 0.5)
    return zuko.flows.Flow(layers, base)


def maf(context: int = 0, **options: Any) -> Any:
    import zuko

    return zuko.flows.MaskedAutoregressiveTransform(D, context, **{"hidden_features": (12, 12), **options})


def inverse_and_permuted() -> Any:
    import zuko

    order = zuko.lazy.UnconditionalTransform(zuko.transforms.PermutationTransform, torch.randperm(D), buffer=True)
    return over_normal(maf().inv, order, maf(activation=nn.ELU).inv)


def additive() -> Any:
    import zuko

    kind = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
    return zuko.flows.NICE(D, 2, transforms=3, hidden_features=(8,), **kind)


def of(name: str, **options: Any) -> Any:
    import zuko

    return getattr(zuko.flows, name)(D, **{"transforms": 3, "hidden_features": (12, 12), **options})


def graph() -> torch.Tensor:
    """No staircase: each feature sees the one before the last only."""
    return torch.eye(D, dtype=torch.bool) | torch.eye(D, dtype=torch.bool).roll(2, 0).tril()


def slope() -> Any:
    import zuko

    return over_normal(maf(univariate=partial(zuko.transforms.MonotonicAffineTransform, slope=1e-2)))


MODELS: dict[str, Any] = {
    "MAF": lambda: of("MAF"),
    "MAF, context": lambda: of("MAF", context=2, randperm=True),
    "MAF, residual": lambda: of("MAF", context=2, residual=True, activation=nn.Tanh, hidden_features=(12, 12, 9)),
    "MAF, few passes": lambda: of("MAF", passes=2),
    "MAF of a graph": lambda: over_normal(maf(2, adjacency=graph())),
    "slope": slope,
    "IAF": inverse_and_permuted,
    "RealNVP": lambda: of("RealNVP"),
    "RealNVP, context": lambda: of("RealNVP", context=2, randmask=True, activation=nn.SiLU),
    "NICE, context": additive,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_flow_is_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    # Noise could make a scale of the base negative.
    trained(model.transform)
    model = model.to(dtype).eval()
    flow = from_zuko(model)
    assert type(flow) is Flow and not flow.training
    x = torch.randn(9, D, dtype=dtype)
    context = torch.randn(9, 2, dtype=dtype) if "context" in name or name in ("MAF, residual", "MAF of a graph") else None
    theirs = model(context)
    check_conversion(flow, theirs.log_prob, theirs.transform.inv, x, context, tmp_path)


def rotated() -> Any:
    import zuko

    return over_normal(zuko.lazy.UnconditionalTransform(zuko.transforms.RotationTransform, torch.randn(D, D)))


REFUSED: dict[str, tuple[Any, str]] = {
    "spline": (
        lambda: of("NSF"),
        r"transform\[0\]: transforms\[0\]: MaskedAutoregressiveTransform: expected a Monotonic.*, found Monotonic",
    ),
    "rotation": (rotated, "UnconditionalTransform: expected a PermutationTransform, found RotationTransform"),
    "activation": (lambda: of("MAF", activation=nn.Hardtanh), "expected an activation of .*, found Hardtanh"),
    "normalised": (lambda: of("RealNVP", normalize=True), "expected an activation of .*, found LayerNorm|after each, found"),
    "continuous": (lambda: __import__("zuko").flows.CNF(D), "FFJTransform: expected one of LazyComposedTransform"),
    "no flow": (lambda: nn.Linear(2, 2), "model: expected a flow of zuko, found Linear"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as caught:
        from_zuko(build())
    assert "\n" not in str(caught.value)
