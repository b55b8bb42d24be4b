from __future__ import annotations

import copy
import itertools
import json
import pickle

import pytest
import torch
from torch import Tensor

from fastgen.models import BernoulliMADE


def model(features: int = 5, **options) -> BernoulliMADE:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    made = BernoulliMADE(features, **{"hidden_features": (16,), "activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.8)
    return made


def all_vectors(features: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=features)), dtype=torch.float64)


@pytest.mark.parametrize("features", [1, 5])
@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("options", [{}, {"order": "random", "residual": True}, {"hidden_features": (), "order": "reversed"}])
def test_probabilities_sum_to_one(features: int, context_features: int, options: dict) -> None:
    made = model(features, context_features=context_features, **options)
    context = torch.randn(2, dtype=torch.float64) if context_features else None
    total = made.log_prob(all_vectors(features), context).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64), rtol=1e-12, atol=0)


def test_log_prob_is_the_product_of_its_conditionals() -> None:
    made = model(order="random")
    x = all_vectors(5)
    p = made.made(x).squeeze(-1).sigmoid()
    expected = torch.where(x == 1, p, 1 - p).log().sum(-1)
    torch.testing.assert_close(made.log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_samples_have_the_probabilities() -> None:
    made = model(3)
    n = 20000
    x = made.sample(n)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    index = (x @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long()
    expected = made.log_prob(all_vectors(3)).exp().detach()
    error = index.bincount(minlength=8) / n - expected
    # Five standard deviations of a frequency.
    assert (error.abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-4).all()


def test_samples_follow_the_conditionals_of_their_own_prefix() -> None:
    made = model(order="random")
    x = made.sample(50, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(x, (uniform < made.made(x).squeeze(-1).sigmoid()).double())


@pytest.mark.parametrize("n", [0, 4, (2, 3)])
@pytest.mark.parametrize("context_shape", [None, (2,), (3, 2)])
def test_shapes(n, context_shape) -> None:  # type: ignore[no-untyped-def]
    made = model(context_features=0 if context_shape is None else 2)
    context = None if context_shape is None else torch.randn(context_shape, dtype=torch.float64)
    shape = (*((n,) if isinstance(n, int) else n), *(() if context_shape is None else context_shape[:-1]))
    x, log_prob = made.sample_and_log_prob(n, context)
    assert x.shape == (*shape, 5) and log_prob.shape == shape and not log_prob.requires_grad
    torch.testing.assert_close(made.log_prob(x, context), log_prob, rtol=1e-12, atol=1e-12)
    assert made(x, context).requires_grad


def test_dtypes_and_autocast() -> None:
    made = model()
    x = all_vectors(5)
    expected = made.log_prob(x)
    assert expected.dtype == torch.float64
    for dtype in (torch.float32, torch.bfloat16):
        log_prob = copy.deepcopy(made).to(dtype).log_prob(x.to(dtype))
        assert log_prob.dtype == torch.float32
        # Five logits of size up to 10, each off by a few roundings.
        torch.testing.assert_close(log_prob.double(), expected, rtol=0, atol=5 * 10 * 2 * torch.finfo(dtype).eps)
    with torch.autocast("cpu", torch.bfloat16):
        assert made.float().log_prob(x.float()).dtype == torch.float32
        assert made.sample(3).dtype == torch.float32


def test_config_copies_and_pickles() -> None:
    made = model(order="random", context_features=2)
    rebuilt = BernoulliMADE(**json.loads(json.dumps(made.config))).double()
    rebuilt.load_state_dict(made.state_dict())
    x, context = all_vectors(5), torch.randn(2, dtype=torch.float64)
    for twin in (rebuilt, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin.log_prob(x, context), made.log_prob(x, context))


def test_compiles_into_one_graph() -> None:
    made = model()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(all_vectors(5)), made(all_vectors(5)))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="features: expected at least 1, found 0"):
        BernoulliMADE(0)
    with pytest.raises(ValueError, match="n: expected at least 0 samples, found -2"):
        model().sample(-2)
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 5\)"):
        model().log_prob(torch.zeros(2, 4, dtype=torch.float64))
