"""What tests of models share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fastgen.models import AutoregressiveDensity, BernoulliMADE, CategoricalMADE, GaussianMADE, MixtureMADE

KINDS = {
    "bernoulli": (BernoulliMADE, {}),
    "categorical": (CategoricalMADE, {"categories": 3}),
    "gaussian": (GaussianMADE, {}),
    "mixture": (MixtureMADE, {"components": 3}),
}


class Densities:
    """Small densities in float64 whose parameters are all far from zero, in evaluation mode, and data for them."""

    def make(self, kind: str, features: int = 3, std: float = 0.5, **options) -> AutoregressiveDensity:  # type: ignore[no-untyped-def]
        torch.manual_seed(0)
        model, own = KINDS[kind]
        options = {"hidden_features": (16,), "activation": "tanh", **own, **options}
        made = model(features, **options, dtype=torch.float64)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(std=std)
        return made.eval()

    def ensemble(self, kind: str, features: int = 3, **options) -> AutoregressiveDensity:  # type: ignore[no-untyped-def]
        """One of several masks, in order and connectivity."""
        return self.make(kind, features, **{"order": "random", "hidden_degrees": "random", "masks": 4, **options})

    def data(self, kind: str, *shape: int) -> torch.Tensor:
        values = {"bernoulli": 2, "categorical": 3}.get(kind)
        return torch.randn(shape, dtype=torch.float64) if values is None else torch.randint(values, shape).double()


@pytest.fixture
def densities() -> Densities:
    return Densities()


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:  # type: ignore[no-untyped-def]
    return request.param


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests() -> Iterator[None]:
    """All models compile one function, and the compiler keeps a few graphs of each only."""
    yield
    torch.compiler.reset()
