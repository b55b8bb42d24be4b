from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor

from fastgen.models import FVSBN, BernoulliMADE
from fastgen.train import fit
from fastgen.train.checkpoint import load_checkpoint


def model(features: int = 5, **options) -> FVSBN:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    made = FVSBN(features, **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made.eval()


def all_vectors(features: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=features)), dtype=torch.float64)


def logits(made: FVSBN, x: Tensor) -> Tensor:
    """a_i + sum_{j<i} w_ij x_j, one term after the other, in the natural order."""
    layer = made.made.layers[0]
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    rows = [[bias[i] + sum(weight[i][j] * row[j] for j in range(i)) for i in range(len(row))] for row in x.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def test_log_prob_is_the_formula_of_the_model() -> None:
    made, x = model(), all_vectors(5)
    p = logits(made, x).sigmoid()
    expected = torch.where(x == 1, p, 1 - p).log().sum(-1)
    torch.testing.assert_close(made.log_prob(x).detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["natural", "reversed", "random", [2, 5, 1, 3, 4]])
def test_probabilities_sum_to_one(order) -> None:  # type: ignore[no-untyped-def]
    total = model(order=order).log_prob(all_vectors(5)).exp().sum().item()
    assert total == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("features", "context_features"), [(1, 0), (5, 0), (5, 3)])
def test_the_parameters_that_count_are_those_with_a_gradient(features: int, context_features: int) -> None:
    made = model(features, context_features=context_features)
    x = torch.randint(2, (50, features)).double()
    made.log_prob(x, torch.randn(50, context_features, dtype=torch.float64) if context_features else None).sum().backward()
    counted = sum(int((p.grad != 0).sum()) for p in made.parameters())
    assert made.parameter_count == counted == features * (features + 1) // 2 + features * context_features


def test_it_is_a_bernoulli_made_without_hidden_layers() -> None:
    made = model(order="random", seed=3)
    twin = BernoulliMADE(5, hidden_features=(), order="random", seed=3).double()
    twin.load_state_dict(made.state_dict())
    assert torch.equal(twin.log_prob(all_vectors(5)), made.log_prob(all_vectors(5)))


def test_samples_have_the_probabilities() -> None:
    made, n = model(3), 20000
    x, log_prob = made.sample_and_log_prob(n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_prob, made.log_prob(x).detach(), rtol=1e-12, atol=1e-12)
    index = (x @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long()
    expected = made.log_prob(all_vectors(3)).exp().detach()
    # Five standard deviations of a frequency.
    assert ((index.bincount(minlength=8) / n - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-4).all()


def test_it_learns_a_chain_of_copies_and_comes_back_from_its_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    first = torch.randint(2, (3000, 1)).float()
    flipped = (torch.rand(3000, 5) < 0.1).float().cumsum(-1)
    x = torch.cat([first, (first + flipped) % 2], -1)
    made = FVSBN(6)
    records = fit(made, x, epochs=30, learning_rate=0.05, run=tmp_path)
    # One fair coin, then five that differ from the one before with probability 0.1.
    truth = -(torch.log(torch.tensor(2.0)) - 5 * (0.1 * torch.tensor(0.1).log() + 0.9 * torch.tensor(0.9).log())) / 6
    # Of 300 validation rows: their standard error is about 0.023 nats per dimension.
    assert max(r.valid for r in records) == pytest.approx(truth.item(), abs=0.07)
    again, description = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert type(again) is FVSBN and description["model"]["name"] == "fvsbn"
    assert torch.equal(again.log_prob(x), made.eval().log_prob(x))


def test_config_builds_the_same_model() -> None:
    made = model(order="random", context_features=2)
    twin = FVSBN(**json.loads(json.dumps(made.config))).double()
    twin.load_state_dict(made.state_dict())
    x, context = all_vectors(5), torch.randn(2, dtype=torch.float64)
    assert torch.equal(twin.log_prob(x, context), made.log_prob(x, context))


def test_it_has_no_hidden_layers_to_choose() -> None:
    with pytest.raises(TypeError, match="hidden_features"):
        FVSBN(3, hidden_features=(4,))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="features: expected at least 1, found 0"):
        FVSBN(0)
