from __future__ import annotations

import itertools
import json

import torch
import torch.nn.functional as F

from fastgen.models import CategoricalMADE


def test_log_prob_is_the_product_of_softmaxes(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.make("categorical", 4, categories=5, order="random")
    x = torch.randint(5, (20, 4))
    logits = model.made(F.one_hot(x, 5).double().flatten(-2))
    assert logits.shape == (20, 4, 5)
    expected = -F.cross_entropy(logits.movedim(-1, 1), x, reduction="none").sum(-1)
    for data in (x, x.double(), x.float(), x.to(torch.uint8)):
        torch.testing.assert_close(model.log_prob(data), expected, rtol=1e-11, atol=1e-11)


def test_logits_depend_on_the_features_before_and_on_no_other(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("categorical", 4)
    x = torch.randint(3, (1, 4)).double()
    for mask, degrees in enumerate(model.made.orders):
        before = model.made(model.conditional.encode(x, torch.float64), mask=mask)
        for i in range(4):
            changed = x.clone()
            changed[0, i] = (x[0, i] + 1) % 3
            after = model.made(model.conditional.encode(changed, torch.float64), mask=mask)
            assert torch.equal((after != before).any(-1)[0], degrees > degrees[i])


def test_two_categories_are_a_bernoulli_in_every_value() -> None:
    torch.manual_seed(0)
    model = CategoricalMADE(**json.loads(json.dumps(CategoricalMADE(3, categories=2, hidden_features=(8,)).config))).double()
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x).exp().sum(), torch.ones((), dtype=torch.float64), rtol=1e-6, atol=0)
    assert model.discrete and CategoricalMADE.discrete and model.config["categories"] == 2
