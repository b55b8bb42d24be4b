"""torch.export of densities and samples, for batches of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from fastgen import flows, models

D, BATCH = 4, {0: Dim("batch", min=2, max=4096)}
SMALL: dict[str, Any] = {"transforms": 2, "hidden_features": (8, 8)}
FLOWS: dict[str, Any] = {
    "MAF": lambda: flows.MAF(D, batch_norm=True, **SMALL),
    "IAF": lambda: flows.IAF(D, **SMALL),
    "RealNVP": lambda: flows.RealNVP(D, **SMALL),
    "planar": lambda: flows.PlanarFlow(D, transforms=2),
    "radial": lambda: flows.RadialFlow(D, transforms=2),
}


class FromNoise(nn.Module):
    """Samples, and their log-densities, of noise that is given."""

    def __init__(self, flow: flows.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = self.flow.seen_context(context)
        x, log_det = self.flow.transform.inverse(noise, seen)
        return x, self.flow.base.log_prob(noise, seen) - log_det


class Drawn(nn.Module):
    """As many samples as there are rows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        return self.model.sample(rows.shape[0])


def exported(module: nn.Module, *inputs: Tensor) -> Any:
    return export(module.eval(), inputs, dynamic_shapes=tuple(BATCH for _ in inputs))


@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_samples_of_given_noise(name: str) -> None:
    torch.manual_seed(0)
    flow = FLOWS[name]().eval()
    x, more = torch.randn(5, D), torch.randn(9, D)
    program = exported(flow, x)
    targets = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert "fastgen" in targets
    torch.testing.assert_close(program.module()(more), flow.log_prob(more), rtol=1e-5, atol=1e-5)
    sampler = FromNoise(flow)
    found, expected = exported(sampler, x).module()(more), sampler(more)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.log_prob(found[0]), found[1], rtol=1e-4, atol=1e-4)


def test_a_program_is_saved_and_loaded(tmp_path: Path) -> None:
    flow = flows.MAF(D, transforms=1, hidden_features=(8,)).eval()
    torch.export.save(exported(flow, torch.randn(5, D)), tmp_path / "flow.pt2")
    x = torch.randn(9, D)
    torch.testing.assert_close(torch.export.load(tmp_path / "flow.pt2").module()(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)


def test_a_context() -> None:
    torch.manual_seed(0)
    flow = flows.MAF(
        D, context_features=1, embedding={"embedding": "ClassEmbedding", "classes": 3, "features": 2}, **SMALL
    ).eval()
    x, context = torch.randn(9, D), torch.randint(3, (9, 1)).float()
    program = exported(flow, x[:5], context[:5]).module()
    torch.testing.assert_close(program(x, context), flow.log_prob(x, context), rtol=1e-5, atol=1e-5)


MODELS: dict[str, Any] = {
    "MAF": lambda: flows.MAF(D, **SMALL),
    "learned base": lambda: flows.IAF(D, base={"base": "DiagonalNormal"}, **SMALL),
    "mixture base": lambda: flows.RealNVP(D, base={"base": "MixtureOfNormals", "components": 2}, **SMALL),
    "logistic base": lambda: flows.NICE(D, base={"base": "StandardLogistic"}, **SMALL),
    "uniform base": lambda: flows.NICE(D, base={"base": "Uniform", "low": 0.0, "high": 1.0}, **SMALL),
    "Gaussian MADE": lambda: models.GaussianMADE(D, hidden_features=(8,)),
    "mixture MADE": lambda: models.MixtureMADE(D, components=2, hidden_features=(8,)),
    "Bernoulli MADE": lambda: models.BernoulliMADE(D, hidden_features=(8,)),
    "VAE": lambda: models.VAE(D, latent_features=2, hidden_features=(5,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_samples_that_are_drawn_inside(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    program = exported(Drawn(model), torch.zeros(5, 1)).module()
    torch.manual_seed(1)
    found = program(torch.zeros(9, 1))
    torch.manual_seed(1)
    torch.testing.assert_close(found, model.sample(9), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_says_so() -> None:
    flow = flows.MAF(D, batch_norm=True, **SMALL)
    with pytest.raises(RuntimeError, match=r"BatchNorm: expected evaluation mode \(`\.eval\(\)`\) for torch\.export"):
        export(flow.train(), (torch.randn(5, D),))
    truncated = Drawn(flows.Truncated(flow.eval(), -1.0, 1.0))
    with pytest.raises(RuntimeError, match=r"Truncated\.sample: expected the samples of its flow, .* for torch\.export"):
        export(truncated, (torch.zeros(5, 1),))
