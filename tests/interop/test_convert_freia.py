"""FrEIA's couplings, converted where their clamp has a form here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conversion import check_conversion, trained
from torch import nn

from fastgen.flows import Flow
from fastgen.interop import from_freia

pytest.importorskip("FrEIA", reason="FrEIA is not installed")
from FrEIA import framework, modules

D = 5


def subnet(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs))


def sequence(*kinds: Any, **options: Any) -> Any:
    model = framework.SequenceINN(D)
    for kind in kinds:
        model.append(modules.PermuteRandom, seed=1)
        model.append(kind, subnet_constructor=subnet, **options)
    return model


MODELS: dict[str, Any] = {
    "RealNVP": lambda: sequence(modules.RNVPCouplingBlock, modules.RNVPCouplingBlock, clamp_activation="TANH", clamp=1.5),
    "Glow": lambda: sequence(modules.GLOWCouplingBlock, modules.GLOWCouplingBlock, clamp_activation="SIGMOID"),
    "one side": lambda: sequence(modules.AffineCouplingOneSided, clamp_activation="TANH", split_len=2),
    "NICE": lambda: sequence(modules.NICECouplingBlock, modules.NICECouplingBlock),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_a_flow_is_equal(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained(MODELS[name](), dtype)
    flow = from_freia(model)
    assert type(flow) is Flow and not flow.training

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        z, log_det = model(x)
        return -0.5 * (z**2).sum(-1) - D / 2 * math.log(2 * math.pi) + log_det

    check_conversion(flow, log_prob, lambda z: model(z, rev=True)[0], torch.randn(9, D, dtype=dtype), None, tmp_path)


def own(inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


def conditional() -> Any:
    model = framework.SequenceINN(D)
    model.append(modules.NICECouplingBlock, cond=0, cond_shape=(2,), subnet_constructor=subnet)
    return model


def of_own() -> Any:
    model = framework.SequenceINN(D)
    model.append(modules.NICECouplingBlock, subnet_constructor=own)
    return model


REFUSED: dict[str, tuple[Any, str]] = {
    "arctangent": (
        lambda: sequence(modules.GLOWCouplingBlock),
        r"module_list\[1\]: GLOWCouplingBlock: expected clamp_activation 'TANH' or 'SIGMOID'",
    ),
    "all in one": (lambda: sequence(modules.AllInOneBlock), "AllInOneBlock: expected one of RNVPCouplingBlock"),
    "volume": (lambda: sequence(modules.GINCouplingBlock), "GINCouplingBlock: expected one of RNVPCouplingBlock"),
    "condition": (conditional, "model: expected a SequenceINN of vectors without conditions"),
    "subnetwork": (of_own, "NICECouplingBlock: expected a Sequential as its subnetwork, found Linear"),
    "no model": (lambda: nn.Linear(2, 2), "model: expected a SequenceINN of FrEIA, found Linear"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_named(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as caught:
        from_freia(build())
    assert "\n" not in str(caught.value)
