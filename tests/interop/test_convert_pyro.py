"""Flows of Pyro, converted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion import check_conversion, trained
from torch import Tensor, nn

from fastgen.flows import Flow
from fastgen.interop import from_pyro

pyro = pytest.importorskip("pyro", reason="pyro is not installed")
from pyro import distributions as dist  # noqa: E402
from pyro.distributions import transforms as T  # noqa: E402
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN, DenseNN  # noqa: E402

D, F = 5, 2


def iaf(**options: Any) -> Any:
    return T.AffineAutoregressive(AutoRegressiveNN(D, [12, 11], **options))


def conditional_iaf(**options: Any) -> Any:
    return T.ConditionalAffineAutoregressive(ConditionalAutoRegressiveNN(D, F, [12], **options), log_scale_min_clip=-0.3)


def coupling() -> Any:
    return T.affine_coupling(D, hidden_dims=[8, 8], split_dim=2, log_scale_max_clip=0.4)


def normalised() -> Any:
    layer = T.BatchNorm(D)
    layer.moving_mean.normal_()
    layer.moving_variance.uniform_(0.5, 2)
    return layer


TRANSFORMS: dict[str, Any] = {
    "IAF": lambda: [iaf(), T.permute(D), iaf(nonlinearity=nn.Tanh())],
    "IAF, skip": lambda: [iaf(skip_connections=True)],
    "MAF": lambda: [iaf().inv, normalised(), iaf(permutation=torch.arange(D)).inv],
    "RealNVP": lambda: [coupling(), T.permute(D), coupling().inv],
    "composed": lambda: [dist.torch_transform.ComposeTransformModule([iaf(), coupling()])],
    "IAF, context": lambda: [conditional_iaf(), T.permute(D), iaf()],
    "MAF, context": lambda: [conditional_iaf().inv, conditional_iaf().inv],
    "RealNVP, context": lambda: [T.conditional_affine_coupling(D, F, hidden_dims=[8, 8]), T.permute(D), coupling()],
}


def base(dtype: torch.dtype = torch.float64) -> Any:
    return dist.Normal(torch.randn(D, dtype=dtype), torch.rand(D, dtype=dtype) + 0.5)


def distribution_of(transforms: Sequence[Any], dtype: torch.dtype) -> Any:
    for transform in transforms:
        inner = transform.inv if isinstance(transform, torch.distributions.transforms._InverseTransform) else transform
        if isinstance(inner, nn.Module):
            trained(inner, dtype)
    conditional = any(isinstance(t, dist.conditional.ConditionalTransform) for t in transforms)
    kind = dist.ConditionalTransformedDistribution if conditional else dist.TransformedDistribution
    return kind(base(dtype), list(transforms))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_flow_is_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    distribution = distribution_of(TRANSFORMS[name](), dtype)
    flow = from_pyro(distribution)
    assert type(flow) is Flow and not flow.training
    x = torch.randn(9, D, dtype=dtype)
    context = torch.randn(9, F, dtype=dtype) if "context" in name else None
    theirs = distribution if context is None else distribution.condition(context)

    def from_noise(noise: Tensor) -> Tensor:
        for transform in theirs.transforms:
            noise = transform(noise)
        return noise

    check_conversion(flow, theirs.log_prob, from_noise, x, context, tmp_path)


REFUSED: dict[str, tuple[Any, str]] = {
    "stable": (
        lambda: [iaf(), T.AffineAutoregressive(AutoRegressiveNN(D, [8]), stable=True)],
        r"transforms\[1\]: Affine.*stable=F",
    ),
    # zuko, once imported, calls the first of them Inverse.
    "planar": (lambda: [T.Planar(D)], "Planar: expected one of (_InverseTransform|Inverse), .*AffineAutoregressive"),
    "conditioned": (lambda: [conditional_iaf().condition(torch.zeros(F))], r"expected an \(unconditioned\) AutoRegressiveNN"),
    "parameters": (
        lambda: [T.AffineAutoregressive(AutoRegressiveNN(D, [8], param_dims=[1, 2]))],
        r"expected param_dims \[1, 1\], found \[1, 2\]",
    ),
    "skip and context": (lambda: [conditional_iaf(skip_connections=True)], "expected no skip connections with a context"),
    "network": (lambda: [T.AffineCoupling(2, nn.Linear(2, 6))], "expected dim -1 and a DenseNN, found -1 and Linear"),
    "sizes": (lambda: [T.AffineCoupling(2, DenseNN(3, [8], [3, 3]))], "expected a mean and a log-scale from 2 features"),
    "activation": (lambda: [iaf(nonlinearity=nn.Hardtanh())], "expected an activation of .*, found Hardtanh"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    build, message = REFUSED[name]
    transforms = build()
    conditional = any(isinstance(t, dist.conditional.ConditionalTransform) for t in transforms)
    kind = dist.ConditionalTransformedDistribution if conditional else dist.TransformedDistribution
    with pytest.raises(TypeError, match=message) as caught:
        from_pyro(kind(base(torch.float32), transforms))
    assert "\n" not in str(caught.value)


def test_other_bases_and_other_objects_are_named() -> None:
    with pytest.raises(TypeError, match=r"Laplace: expected a Normal of one row of features"):
        from_pyro(dist.TransformedDistribution(dist.Laplace(torch.zeros(D), 1.0), [iaf()]))
    with pytest.raises(TypeError, match=r"distribution: expected a TransformedDistribution .*, found Linear"):
        from_pyro(nn.Linear(2, 2))
