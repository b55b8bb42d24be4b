"""Models of normflows: the same numbers, in their slow directions too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_agrees, assert_as_accurate_after_training, assert_same
from torch import Tensor, nn

import fastgen

pytest.importorskip("normflows", reason="normflows is not installed")

import normflows as nf

from fastgen.interop import normflows as adapter

D, B, C = 6, 7, 3
DTYPES = [torch.float32, torch.float64]
AFFINE = ("MaskedAffineAutoregressive", "MADE", "MaskedLinear", "DiagGaussian")


def flow(layers: list[nn.Module]) -> Any:
    base = nf.distributions.DiagGaussian(D)
    nn.init.normal_(base.loc)
    nn.init.normal_(base.log_scale)
    return nf.NormalizingFlow(base, layers)


def maf(reverse: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    layers = [nf.flows.MaskedAffineAutoregressive(D, 12, **options) for _ in range(2)]
    return flow([nf.flows.Reverse(layer) if reverse else layer for layer in layers])


def densities_and_samples(model: Any) -> list[Tensor]:
    dtype = next(model.parameters()).dtype
    x = torch.randn(B, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    return [model.log_prob(x), model.forward_kld(x), *model.sample(B)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_autoregressive_flows_agree(residual: bool, reverse: bool, dtype: torch.dtype) -> None:
    model = maf(reverse, use_residual_blocks=residual, activation=torch.tanh)
    assert_agrees(model, densities_and_samples, AFFINE, dtype)


def test_permuted_masks_are_read() -> None:
    torch.manual_seed(0)
    made = nf.nets.MADE(D, 12, permute_mask=True, output_multiplier=2)
    x = torch.randn(B, D)
    fast = assert_agrees(made, lambda m: [m(x)], ("MADE", "MaskedLinear"), torch.float32)
    assert not any(fast.derived().planned.loose)


def test_a_context_through_a_gate_is_left() -> None:
    torch.manual_seed(0)
    layer = nf.flows.MaskedAffineAutoregressive(D, 12, context_features=C)
    x, context = torch.randn(B, D), torch.randn(B, C)
    fast = assert_agrees(layer, lambda m: [*m(x, context), *m.inverse(x, context)], ("MaskedLinear",), torch.float32)
    reasons = {entry.kind.rpartition(".")[2]: entry.reason for entry in fastgen.accelerate_report(fast).left}
    assert reasons["MADE"] == "a context inside its residual blocks"


def test_a_preprocessing_is_left() -> None:
    made = nf.nets.MADE(D, 12, preprocessing=nn.Tanh())
    reasons = {entry.name: entry.reason for entry in fastgen.accelerate_report(made).left}
    assert reasons[""] == "a preprocessing of its own"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_map", ["exp", "sigmoid", "sigmoid_inv"])
def test_couplings_of_vectors_agree(scale_map: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "GRADIENTS_AS_THEY_ARE", False)
    torch.manual_seed(0)
    networks = [nf.nets.MLP([D // 2, 8, D]) for _ in range(2)]
    modes = ("channel", "channel_inv")
    layers = [nf.flows.AffineCouplingBlock(n, scale_map=scale_map, split_mode=m) for n, m in zip(networks, modes, strict=True)]
    assert_agrees(flow(layers), densities_and_samples, ("AffineCoupling", "DiagGaussian"), dtype)


def test_couplings_of_images_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "GRADIENTS_AS_THEY_ARE", False)
    torch.manual_seed(0)
    layer = nf.flows.AffineCouplingBlock(nf.nets.ConvNet2d([2, 8, 4], [3, 3]), scale_map="sigmoid")
    x = torch.randn(2, 4, 4, 6)
    assert_agrees(layer, lambda m: [*m(x), *m.inverse(x)], ("AffineCoupling",), torch.float32)


def test_an_additive_coupling_is_one_addition() -> None:
    layer = nf.flows.AffineCouplingBlock(nf.nets.MLP([3, 8, 3]), scale=False)
    with pytest.warns(UserWarning, match="one addition"):
        fastgen.accelerate(layer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shifts", [True, False])
def test_masked_affine_flows_agree(shifts: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    b = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    nets: Callable[[], nn.Module] = lambda: nf.nets.MLP([D, 8, D])  # noqa: E731
    layers = [nf.flows.MaskedAffineFlow(mask, nets() if shifts else None, nets()) for mask in (b, 1 - b)]
    assert_agrees(flow(layers), densities_and_samples, ("MaskedAffineFlow", "DiagGaussian"), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["Planar", "Radial"])
def test_planar_and_radial_flows_agree(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = flow([getattr(nf.flows, kind)((D,)) for _ in range(3)])
    assert_agrees(model, lambda m: [*m.sample(B)], (kind, "DiagGaussian"), dtype)


def test_a_planar_flow_without_an_inverse_has_none_and_one_with_keeps_it() -> None:
    x = torch.randn(B, D)
    with pytest.raises(NotImplementedError, match="no algebraic inverse"):
        fastgen.accelerate(nf.flows.Planar((D,))).inverse(x)
    leaky = nf.flows.Planar((D,), act="leaky_relu")
    with pytest.warns(UserWarning, match="the activation leaky_relu"):
        assert_same(fastgen.accelerate(copy.deepcopy(leaky)).inverse(x), leaky.inverse(x))


def test_a_radial_flow_around_a_point_of_alpha_zero_has_gradients() -> None:
    layer = nf.flows.Radial((D,))
    nn.init.zeros_(layer.alpha)
    x = torch.randn(B, D)
    assert_agrees(layer, lambda m: [*m(x)], ("Radial",), torch.float64)


def test_temperatures_of_the_base_count() -> None:
    base = nf.distributions.DiagGaussian(D)
    base.temperature = 0.7
    x = torch.randn(B, D)
    assert_agrees(base, lambda m: [m.log_prob(x), *m(3)], ("DiagGaussian",), torch.float32)


def test_the_slow_density_after_training_has_no_larger_errors() -> None:
    model = maf(use_residual_blocks=False)
    x = torch.randn(200, D) @ torch.randn(D, D)
    assert_as_accurate_after_training(
        model, lambda m: m.forward_kld(x), lambda m: [m.log_prob(x.to(next(m.parameters()).dtype))]
    )
