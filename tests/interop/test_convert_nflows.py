"""Flows of nflows, converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion import check_conversion, check_equal, trained
from torch import nn

from fastgen.flows import Flow
from fastgen.interop import from_nflows

nflows = pytest.importorskip("nflows", reason="nflows is not installed")
from nflows import distributions, transforms  # noqa: E402
from nflows.flows import Flow as NFlow  # noqa: E402
from nflows.flows import MaskedAutoregressiveFlow, SimpleRealNVP  # noqa: E402
from nflows.nn.nets import ResidualNet  # noqa: E402

D = 5


def stack(*layers: Any, base: Any = None, embedding: nn.Module | None = None) -> NFlow:
    return NFlow(transforms.CompositeTransform(list(layers)), base or distributions.StandardNormal([D]), embedding)


def maf(**options: Any) -> Any:
    return transforms.MaskedAffineAutoregressiveTransform(D, 11, **{"num_blocks": 2, **options})


def coupling(kind: Any = transforms.AffineCouplingTransform, **options: Any) -> Any:
    mask = torch.tensor([1, -1, -1, 1, 1])
    return kind(mask, lambda i, o: ResidualNet(i, o, 7, **options))


def normalised(layer: Any) -> Any:
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


def initialised() -> Any:
    layer = transforms.ActNorm(D)
    layer.initialized.fill_(True)
    return layer


MODELS: dict[str, Any] = {
    "MAF": lambda: MaskedAutoregressiveFlow(D, 12, num_layers=3, num_blocks_per_layer=2),
    "MAF of defaults, few units": lambda: MaskedAutoregressiveFlow(D, 3, num_layers=2, num_blocks_per_layer=1),
    "MAF without residuals, permuted": lambda: MaskedAutoregressiveFlow(
        D, 12, 2, 2, use_residual_blocks=False, use_random_masks=True, use_random_permutations=True, activation=torch.tanh
    ),
    "MAF, batch norm between": lambda: stack(maf(), normalised(transforms.BatchNorm(D)), maf(activation=F.elu)),
    "IAF": lambda: stack(
        transforms.InverseTransform(maf()), transforms.ReversePermutation(D), transforms.InverseTransform(maf())
    ),
    "no blocks": lambda: stack(maf(num_blocks=0, use_residual_blocks=False), maf(num_blocks=0)),
    "one feature": lambda: NFlow(
        transforms.MaskedAffineAutoregressiveTransform(1, 4, num_blocks=1), distributions.StandardNormal([1])
    ),
    "RealNVP": lambda: SimpleRealNVP(D, 8, num_layers=3, num_blocks_per_layer=2),
    "RealNVP, batch norm between": lambda: SimpleRealNVP(D, 8, 2, 1, batch_norm_between_layers=True, dropout_probability=0.3),
    "NICE": lambda: SimpleRealNVP(D, 8, 2, 2, use_volume_preserving=True),
    "coupling": lambda: stack(coupling(), initialised(), base=distributions.DiagonalNormal([D])),
    "affine first": lambda: stack(transforms.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5), coupling(), maf()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_flow_is_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(MODELS[name](), dtype)
    flow = from_nflows(model)
    assert type(flow) is Flow and not flow.training
    x = torch.randn(9, 1 if name == "one feature" else D, dtype=dtype)
    noise_to_data = model._transform.inverse
    check_conversion(flow, model.log_prob, lambda z: noise_to_data(z)[0], x, None, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_context_is_equal_with_its_activation_and_its_first_feature(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"context_features": 3, "use_residual_blocks": False, "activation": torch.tanh}
    model = trained(stack(maf(**options), transforms.RandomPermutation(D), maf(**options)), dtype)
    flow = from_nflows(model)
    x, context = torch.randn(9, D, dtype=dtype), torch.randn(9, 3, dtype=dtype)
    noise_to_data = model._transform.inverse
    check_conversion(flow, lambda x: model.log_prob(x, context), lambda z: noise_to_data(z, context)[0], x, context, tmp_path)


def test_an_embedding_of_ones_own_comes_along() -> None:
    torch.manual_seed(0)
    layer = maf(context_features=3, use_residual_blocks=False)
    model = trained(stack(layer, embedding=nn.Sequential(nn.Linear(2, 3), nn.SiLU())))
    flow = from_nflows(model)
    x, context = torch.randn(4, D).double(), torch.randn(4, 2).double()
    check_equal(flow.log_prob(x, context), model.log_prob(x, context))
    with pytest.raises(TypeError, match=r"embedding: expected .* found Sequential"):
        flow.save_pretrained("never")


def test_the_flow_has_numbers_of_its_own_in_the_models_mode() -> None:
    model = stack(maf()).train()
    flow = from_nflows(model)
    assert flow.training
    x = torch.randn(3, D)
    before = flow.log_prob(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(flow.log_prob(x), before)


class Doubled(transforms.MaskedAffineAutoregressiveTransform):
    pass


REFUSED: dict[str, tuple[Any, str]] = {
    "spline": (
        lambda: stack(transforms.MaskedPiecewiseLinearAutoregressiveTransform(3, D, 8)),
        r"_transform\[0\]: _transforms\[0\]: MaskedPiecewiseLinearAutoregressiveTransform: expected one of",
    ),
    "subclass": (lambda: stack(Doubled(D, 8)), "Doubled: expected one of"),
    "second": (lambda: stack(maf(), transforms.LULinear(D)), r"_transforms\[1\]: LULinear: expected one of"),
    "batch norm": (lambda: stack(maf(use_batch_norm=True)), "MaskedResidualBlock: expected no batch norm inside"),
    "context": (lambda: stack(maf(context_features=2)), "MaskedResidualBlock: expected a context in the first layer only"),
    "activation": (lambda: stack(maf(activation=torch.sin)), "expected an activation of identity, relu.*, found sin"),
    "coupling context": (lambda: stack(coupling(context_features=2)), "AffineCouplingTransform: expected a network without a"),
    "base": (
        lambda: stack(maf(), base=distributions.ConditionalDiagonalNormal([D])),
        "ConditionalDiagonalNormal: expected one of StandardNormal, DiagonalNormal",
    ),
    "no flow": (lambda: nn.Linear(2, 2), "model: expected a flow of nflows, found Linear"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as caught:
        from_nflows(build())
    assert "\n" not in str(caught.value)


def test_another_scale_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = maf()
    monkeypatch.setattr(type(layer), "_elementwise_forward", lambda self, x, p: (x, x.sum(-1)))
    with pytest.raises(TypeError, match="MaskedAffineAutoregressiveTransform: expected a scale of softplus"):
        from_nflows(stack(layer))
