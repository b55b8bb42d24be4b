from __future__ import annotations

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import Tensor

from fastgen.flows import Bounds, Logit, Permutation, Standardise, UnitInterval
from fastgen.models import AutoregressiveDensity

PATTERNS = list(itertools.product([False, True], repeat=3))


def grid(values: int, features: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(values), repeat=features)), dtype=torch.float64)


def order_of(model: AutoregressiveDensity, pattern: Tensor) -> Tensor:
    """The degrees in which the observed features come first, each group in the order of the first mask."""
    generation = model.made.degrees.argsort().tolist()
    generation = [i for i in generation if pattern[i]] + [i for i in generation if not pattern[i]]
    return torch.tensor(generation).argsort() + 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_conditional_probabilities_sum_to_one(densities, pattern: tuple[bool, ...]) -> None:  # type: ignore[no-untyped-def]
    observed = torch.tensor(pattern)
    for kind, values in (("bernoulli", 2), ("categorical", 3)):
        model = densities.ensemble(kind, context_features=2)
        x, context = grid(values, 3), torch.randn(2, dtype=torch.float64)
        probabilities = model.conditional_log_prob(x, observed, context).exp()
        keys = (x * observed * values ** torch.arange(3)).sum(-1).long()
        sums = torch.zeros(values**3, dtype=torch.float64).index_add(0, keys, probabilities)[keys]
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-12, atol=0)


def test_conditional_densities_integrate_to_one(densities) -> None:  # type: ignore[no-untyped-def]
    steps = torch.linspace(-30, 30, 4001, dtype=torch.float64)
    for kind in ("gaussian", "mixture"):
        model = densities.ensemble(kind, std=0.3)
        for i in range(3):
            x = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64).repeat(4001, 1)
            x[:, i] = steps
            observed = torch.arange(3) != i
            total = model.conditional_log_prob(x, observed).detach().exp().sum() * 60 / 4000
            # The trapezium rule has all digits for analytic densities that are wide against its step.
            assert abs(float(total) - 1) < 1e-9


def test_nothing_observed_gives_the_joint_and_everything_nothing(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    for masks in (1, 4):
        model = densities.ensemble(kind, masks=masks, context_features=2)
        x, context = densities.data(kind, 6, 3), torch.randn(6, 2, dtype=torch.float64)
        joint = model.conditional_log_prob(x, torch.zeros(3, dtype=torch.bool), context)
        torch.testing.assert_close(joint, model.log_prob(x, context, mask=0), rtol=1e-11, atol=1e-11)
        assert (model.conditional_log_prob(x, torch.ones(3, dtype=torch.bool), context) == 0).all()


def test_the_pieces_of_the_chain_make_the_joint(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, features=5)
    x = densities.data(kind, 6, 5)
    for pattern in itertools.product([False, True], repeat=5):
        observed = torch.tensor(pattern)
        other = model.made.reordered(order_of(model, observed), x.device)
        outputs = model.made.evaluate(model.conditional.encode(x, torch.float64), None, other)
        log_probs = model.conditional.log_probs(x, outputs)
        rest = log_probs.where(~observed, 0).sum(-1)
        torch.testing.assert_close(model.conditional_log_prob(x, observed), rest, rtol=1e-11, atol=1e-11)
        joint = model.conditional.log_prob(x, outputs)
        torch.testing.assert_close(rest + log_probs.where(observed, 0).sum(-1), joint, rtol=1e-11, atol=1e-11)


def test_along_its_own_order_the_conditionals_are_those_of_the_first_mask(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x = densities.data(kind, 6, 3)
    pieces = [model.conditional_log_prob(x, model.made.degrees <= k) for k in range(4)]
    outputs = model.made(model.conditional.encode(x, torch.float64))
    log_probs = model.conditional.log_probs(x, outputs)[:, model.made.degrees.argsort()]
    for k in range(3):
        torch.testing.assert_close(pieces[k] - pieces[k + 1], log_probs[:, k], rtol=1e-11, atol=1e-11)


def test_draws_keep_what_is_observed_and_read_nothing_else(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    x, context = densities.data(kind, 8, 3), torch.randn(8, 2, dtype=torch.float64)
    observed = torch.tensor(PATTERNS)

    def impute(x: Tensor) -> Tensor:
        return model.impute(x, observed, 5, context, generator=torch.Generator().manual_seed(0))

    drawn = impute(x.where(observed, math.nan))
    assert drawn.shape == (5, 8, 3) and drawn.isfinite().all() and not drawn.requires_grad
    assert torch.equal(drawn[:, observed], x[observed].expand(5, -1))
    assert torch.equal(drawn, impute(x.where(observed, -1e30)))
    assert drawn[:, ~observed].std() > 0


def test_draws_follow_the_conditionals_of_their_own_prefix(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x, observed = densities.data(kind, 8, 3), torch.tensor(PATTERNS)
    drawn = model.impute(x, observed, 4, generator=torch.Generator().manual_seed(1))
    noise = model.conditional.noise((4, 8, 3), torch.float64, x.device, torch.Generator().manual_seed(1))
    for row, pattern in enumerate(observed):
        other = model.made.reordered(order_of(model, pattern), x.device)
        outputs = model.made.evaluate(model.conditional.encode(drawn[:, row], torch.float64), None, other)
        expected = model.conditional.sampler(outputs, noise[:, row])
        torch.testing.assert_close(drawn[:, row, ~pattern], expected[:, ~pattern], rtol=1e-10, atol=1e-10)


def test_draws_have_the_conditional_distribution(densities) -> None:  # type: ignore[no-untyped-def]
    n = 20000
    model = densities.ensemble("categorical")
    x, observed = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64), torch.tensor([False, True, False])
    drawn = model.impute(x, observed, n)
    found = (drawn @ torch.tensor([3.0, 0.0, 1.0], dtype=torch.float64)).long().bincount(minlength=9) / n
    every = x.repeat(9, 1)
    every[:, [0, 2]] = grid(3, 2)
    expected = model.conditional_log_prob(every, observed).exp().detach()
    # Five standard deviations of a frequency.
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-4).all()


def test_rows_are_as_they_are_one_by_one(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x, observed = densities.data(kind, 16, 3), torch.rand(16, 3) < 0.5
    together = model.conditional_log_prob(x, observed)
    for row in range(16):
        torch.testing.assert_close(together[row], model.conditional_log_prob(x[row], observed[row]), rtol=1e-11, atol=1e-11)


def test_shapes(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    context = torch.randn(2, dtype=torch.float64)
    one = torch.tensor([True, False, False])
    for shape in ((3,), (0, 3), (2, 4, 3)):
        x = densities.data(kind, *shape)
        for observed in (one, one.expand(shape)):
            assert model.impute(x, observed, context=context).shape == (1, *shape)
            assert model.impute(x, observed, (2, 5), context).shape == (2, 5, *shape)
            assert model.impute(x, observed, 0, context).shape == (0, *shape)
            assert model.conditional_log_prob(x, observed, context).shape == shape[:-1]
    several = torch.randn(6, 2, dtype=torch.float64)
    assert model.impute(densities.data(kind, 3), one, 4, several).shape == (4, 6, 3)
    assert model.conditional_log_prob(densities.data(kind, 3), one, several).shape == (6,)
    assert model.impute(densities.data(kind, 2, 3).long(), one, context=context).dtype == torch.float64


def test_one_feature(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, 1)
    x = densities.data(kind, 4, 1)
    missing = torch.zeros(1, dtype=torch.bool)
    assert model.impute(x, missing).shape == (1, 4, 1) and torch.equal(model.impute(x, ~missing)[0], x)
    torch.testing.assert_close(model.conditional_log_prob(x, missing), model.log_prob(x), rtol=1e-11, atol=1e-11)


def test_gradients(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2, hidden_features=(5,))
    x, context = densities.data(kind, 4, 3), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    observed = torch.rand(4, 3) < 0.5
    assert torch.autograd.gradcheck(lambda c: model.conditional_log_prob(x, observed, c), context)


def test_gradients_of_preprocessed_data(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("mixture", preprocess=[UnitInterval(4), Logit(0.01)], hidden_features=(5,))
    x, observed = 4 * torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3) < 0.5
    assert torch.autograd.gradcheck(lambda x: model.conditional_log_prob(x, observed), x.requires_grad_())


@pytest.mark.parametrize("preprocess", ["logit", "standardise", "bounds"])
def test_preprocessing_of_each_feature_by_itself(densities, preprocess: str) -> None:  # type: ignore[no-untyped-def]
    standardise = Standardise(3)
    standardise.mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    standardise.std.copy_(torch.tensor([0.5, 2.0, 1.0]))
    before = {
        "logit": [UnitInterval(4), Logit(0.01)],
        "standardise": [],
        "bounds": [Bounds([0.0, None, None], [4.0, 9.0, None])],
    }
    for kind in ("gaussian", "mixture"):
        model = densities.ensemble(kind, preprocess=[*before[preprocess], standardise])
        x, observed = 4 * torch.rand(8, 3, dtype=torch.float64), torch.tensor(PATTERNS)
        y, log_det = model.preprocess(x)
        bare = densities.ensemble(kind, seed=model.config["seed"])
        bare.made.load_state_dict(model.made.state_dict())
        conditional = model.conditional_log_prob(x, observed)
        assert conditional[-1] == 0
        with torch.inference_mode():
            torch.testing.assert_close(model.conditional_log_prob(x, observed), conditional, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(conditional[0], model.log_prob(x, mask=0)[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(conditional[0], bare.conditional_log_prob(y, observed)[0] + log_det[0], rtol=1e-10, atol=0)
        # Of two values of one missing feature, densities differ by those seen by the network and the slopes between.
        drawn = model.impute(x.where(observed, math.nan), observed, 3, generator=torch.Generator().manual_seed(0))
        below = bare.impute(y, observed, 3, generator=torch.Generator().manual_seed(0))
        assert torch.equal(drawn[:, observed], x[observed].expand(3, -1))
        torch.testing.assert_close(drawn, model.preprocess.inverse(below)[0], rtol=1e-10, atol=1e-10)


def test_conditional_densities_of_preprocessed_data_integrate_to_one(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("mixture", preprocess=[UnitInterval(4), Logit(0.01)])
    # Midpoints of [-0.04, 4.04], the data that the inverse of the logit reaches, cut where only tails are left.
    edges = torch.special.expit(torch.linspace(-25, 25, 8001, dtype=torch.float64))
    values = (edges - 0.01) / 0.98 * 4
    x = torch.stack([torch.full_like(values[1:], 1.0), (values[1:] + values[:-1]) / 2, torch.full_like(values[1:], 3.0)], -1)
    density = model.conditional_log_prob(x, torch.tensor([True, False, True])).exp().detach()
    # The midpoint rule's error is of the second order in its steps, 0.006 before the sigmoid.
    assert abs(float((density * values.diff()).sum()) - 1) < 1e-4


def test_transforms_that_mix_features_are_refused(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("gaussian", preprocess=[Permutation([2, 0, 1])])
    x, observed = torch.randn(2, 3, dtype=torch.float64), torch.tensor([True, False, False])
    for call in (model.impute, model.conditional_log_prob):
        with pytest.raises(ValueError, match=r"preprocess: expected Bounds, Logit.* for conditioning, found Permutation"):
            call(x, observed)


@pytest.mark.parametrize(
    "options", [{"order": "random", "masks": 1}, {"order": [2, 3, 1], "masks": 1}, {"order": "natural", "masks": 4}]
)
def test_models_of_one_order_condition_on_its_first_features(densities, kind: str, options: dict) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, **options)
    x = densities.data(kind, 4, 3)
    first = model.made.degrees <= 1
    assert torch.equal(model.impute(x, first)[..., first], x[None][..., first])
    model.conditional_log_prob(x, first)
    for call in (model.impute, model.conditional_log_prob):
        with pytest.raises(ValueError, match="observed: expected the first features in the model's order"):
            call(x, ~first)


def test_copies_and_moves_find_their_own_plans(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x, observed = densities.data(kind, 8, 3), torch.tensor(PATTERNS)
    expected = model.conditional_log_prob(x, observed)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.conditional_log_prob(x, observed), expected)
    single = copy.deepcopy(model).float()
    # Three outputs of size up to 4, each off by a few roundings.
    torch.testing.assert_close(single.conditional_log_prob(x.float(), observed).double(), expected, rtol=0, atol=1e-4)
    assert single.impute(x.float(), observed).dtype == torch.float32


def test_a_pattern_s_plan_is_made_once(densities, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("bernoulli")
    x, observed = densities.data("bernoulli", 8, 3), torch.tensor(PATTERNS)
    expected = model.conditional_log_prob(x, observed)
    monkeypatch.setattr("fastgen.ops._plan.make_plan", None)
    assert torch.equal(model.conditional_log_prob(x, observed), expected)
    model.impute(x, observed)


@pytest.mark.parametrize(
    ("observed", "error", "message"),
    [
        (torch.ones(3), TypeError, "observed: expected a bool tensor, found torch.float32"),
        ([True, False, True], TypeError, "observed: expected a bool tensor, found list"),
        (torch.ones(2, dtype=torch.bool), ValueError, r"observed: expected shape \(..., 3\), found \(2,\)"),
        (torch.ones((), dtype=torch.bool), ValueError, r"observed: expected shape \(..., 3\), found \(\)"),
        (torch.ones(5, 3, dtype=torch.bool), ValueError, r"observed: expected a shape that broadcasts to x's \(4, 3\)"),
    ],
)
def test_bad_patterns_are_named(densities, observed, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("gaussian")
    x = torch.randn(4, 3, dtype=torch.float64)
    for call in (model.impute, model.conditional_log_prob):
        with pytest.raises(error, match=message):
            call(x, observed)
