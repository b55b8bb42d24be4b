"""Flows of normflows, converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conversion import check_conversion, trained
from torch import nn

from fastgen.flows import Flow
from fastgen.interop import from_normflows

nf = pytest.importorskip("normflows", reason="normflows is not installed")

D = 5


def maf(**options: Any) -> Any:
    return nf.flows.MaskedAffineAutoregressive(D, 11, **{"num_blocks": 2, **options})


def coupling(parity: int, scale: bool = True, **options: Any) -> Any:
    mask = (torch.arange(D) % 2 == parity).float()

    def network() -> Any:
        return nf.nets.MLP([D, 8, 8, D], **options)

    return nf.flows.MaskedAffineFlow(mask, network(), network() if scale else None)


def block(outputs: int, **options: Any) -> Any:
    inputs = D - outputs
    width = outputs if options.get("scale") is False else 2 * outputs
    return nf.flows.AffineCouplingBlock(nf.nets.MLP([inputs, 8, width], leaky=0.01), **options)


def initialised() -> Any:
    layer = nf.flows.ActNorm(D)
    layer.data_dep_init_done.fill_(1.0)
    return layer


def model_of(*layers: Any, base: Any = None) -> Any:
    return nf.NormalizingFlow(base or nf.distributions.DiagGaussian(D), list(layers))


MODELS: dict[str, Any] = {
    "MAF": lambda: model_of(maf(), nf.flows.Permute(D), maf()),
    "MAF, reversed": lambda: model_of(
        nf.flows.Reverse(maf()), nf.flows.Permute(D, mode="swap"), nf.flows.Reverse(maf(use_residual_blocks=False))
    ),
    "MAF, random masks": lambda: model_of(
        maf(use_residual_blocks=False, random_mask=True, activation=torch.tanh), base=nf.distributions.DiagGaussian(D, False)
    ),
    "RealNVP": lambda: model_of(coupling(0), coupling(1), initialised(), coupling(0, dropout=0.5)),
    "NICE": lambda: model_of(coupling(0, scale=False), coupling(1, scale=False), nf.flows.AffineConstFlow((D,))),
    "Glow's couplings": lambda: model_of(
        block(2), nf.flows.Permute(D), block(3, split_mode="channel_inv", scale_map="sigmoid_inv"), block(2, scale=False)
    ),
    "composite": lambda: model_of(nf.flows.Composite([coupling(1), nf.flows.Reverse(coupling(0))])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_flow_is_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(MODELS[name](), dtype)
    flow = from_normflows(model)
    assert type(flow) is Flow and not flow.training

    def from_base(noise: torch.Tensor) -> torch.Tensor:
        for layer in model.flows:
            noise, _ = layer(noise)
        return noise

    check_conversion(flow, model.log_prob, from_base, torch.randn(9, D, dtype=dtype), None, tmp_path)


def cut(layer: Any) -> Any:
    layer.t = torch.zeros_like
    return layer


REFUSED: dict[str, tuple[Any, str]] = {
    "planar": (lambda: model_of(maf(), nf.flows.Planar((D,))), r"flows\[1\]: Planar: expected one of Reverse, "),
    "context": (lambda: model_of(maf(context_features=2)), "MaskedResidualBlock: expected a context in the first layer only"),
    "batch norm": (lambda: model_of(maf(use_batch_norm=True)), "expected no batch norm inside"),
    "division": (
        lambda: model_of(block(2, scale_map="sigmoid")),
        "expected scale_map 'exp' or .*, found 'sigmoid', which divides",
    ),
    "checkerboard": (lambda: model_of(block(2, split_mode="checkerboard")), "expected split_mode 'channel' .* 'checkerboard'"),
    "slope": (lambda: model_of(coupling(0, leaky=0.2)), "MaskedAffineFlow: expected an activation of .*, found LeakyReLU"),
    "output": (lambda: model_of(coupling(0, output_fn="tanh")), "MaskedAffineFlow: expected one activation between all layers"),
    "actnorm": (lambda: model_of(nf.flows.ActNorm(D)), "ActNorm: expected one that has seen its first batch"),
    "base": (lambda: model_of(maf(), base=nf.distributions.Uniform(D)), "Uniform: expected one of DiagGaussian"),
    "no model": (lambda: nn.Linear(2, 2), "model: expected a NormalizingFlow of normflows, found Linear"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as caught:
        from_normflows(build())
    assert "\n" not in str(caught.value)
