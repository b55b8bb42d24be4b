from __future__ import annotations

import copy
import itertools
import json
import math
import pickle

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from fastgen import backends
from fastgen.flows import Logit, Standardise, UnitInterval
from fastgen.models import AutoregressiveDensity, GaussianMADE, MixtureMADE


def grid(values: int, features: int) -> Tensor:
    """Every row of `features` of the numbers 0..values - 1."""
    return torch.tensor(list(itertools.product(range(values), repeat=features)), dtype=torch.float64)


def context_for(model: AutoregressiveDensity, *batch: int) -> Tensor | None:
    width = model.made.context_features
    return torch.randn(*batch, width, dtype=torch.float64) if width else None


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("context_features", [0, 2])
def test_probabilities_sum_to_one(densities, features: int, context_features: int) -> None:  # type: ignore[no-untyped-def]
    for kind, values in (("bernoulli", 2), ("categorical", 3)):
        model = densities.ensemble(kind, features, context_features=context_features)
        x, context = grid(values, features), context_for(model)
        for mask in (None, 0, 1, 2, 3):
            total = model.log_prob(x, context, mask=mask).exp().sum()
            torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_densities_integrate_to_one(densities) -> None:  # type: ignore[no-untyped-def]
    steps = torch.linspace(-18, 18, 401, dtype=torch.float64)
    x = torch.cartesian_prod(steps, steps)
    for kind in ("gaussian", "mixture"):
        model = densities.ensemble(kind, 2, std=0.3)
        for mask in (None, 1):
            # The trapezium rule has all digits for analytic densities that are wide against its step.
            assert abs(float(model.log_prob(x, mask=mask).detach().exp().sum()) * 0.09**2 - 1) < 1e-9


def test_log_prob_is_that_of_the_conditionals(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    x, context = densities.data(kind, 6, 3), context_for(model, 6)
    columns = model.conditional.encode(x, torch.float64)
    each = [model.conditional.log_probs(x, model.made(columns, context, mask)).sum(-1) for mask in range(4)]
    for mask in range(4):
        torch.testing.assert_close(model.log_prob(x, context, mask=mask), each[mask], rtol=1e-11, atol=1e-11)
    mixture = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(model.log_prob(x, context), mixture, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model(x, context, mask=1), each[1], rtol=1e-11, atol=1e-11)


def test_training_takes_the_masks_in_turn(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x = densities.data(kind, 5, 3)
    each = [model.log_prob(x, mask=mask) for mask in range(4)]
    mixture = model.log_prob(x)
    model.train()
    for turn in (0, 1, 2, 3, 0, 1):
        assert torch.equal(model(x), each[turn])
        # What names its mask, evaluates or samples does not move the cycle.
        model.log_prob(x, mask=3)
        model.sample_and_log_prob(2)
        assert torch.equal(model.eval().log_prob(x), mixture)
        model.train()
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 3\)"):
        model(x[:, :2])
    assert torch.equal(model(x), each[2])


def test_the_state_holds_the_turn(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("bernoulli").train()
    x = densities.data("bernoulli", 5, 3)
    for _ in range(3):
        model(x)
    state = load(save(model.state_dict()))
    assert all(isinstance(t, Tensor) for t in state.values()) and state["cycle._extra_state"].dtype == torch.int64
    twin = densities.ensemble("bernoulli", seed=model.config["seed"]).train()
    twin.load_state_dict(state)
    for copied in (twin, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), model.log_prob(x, mask=3)) and torch.equal(copied(x), model.log_prob(x, mask=0))
    assert model.cycle.turn == 3


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (torch.tensor(4), "one of 0..3, found 4"),
        (torch.tensor(-1), "one of 0..3, found -1"),
        (torch.tensor(1.0), "an int64 tensor of one number, found torch.float32 of shape \\(\\)"),
        (torch.tensor([1, 2]), "an int64 tensor of one number, found torch.int64 of shape \\(2,\\)"),
        (None, "an int64 tensor of one number, found NoneType"),
    ],
)
def test_a_turn_there_is_not_is_named(densities, state: Tensor | None, found: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("bernoulli")
    with pytest.raises(ValueError, match=f"turn: expected {found}"):
        model.load_state_dict({**model.state_dict(), "cycle._extra_state": state})


def test_one_mask_has_no_turn(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.make(kind)
    assert all(name.startswith("made.") and isinstance(t, Tensor) for name, t in model.state_dict().items())
    x = densities.data(kind, 5, 3)
    assert torch.equal(model.train().log_prob(x), model.eval().log_prob(x))
    assert torch.equal(model.log_prob(x), model.log_prob(x, mask=0))


@pytest.mark.parametrize("masks", [1, 4])
@pytest.mark.parametrize("n", [0, 4, (2, 3), ()])
@pytest.mark.parametrize("batch", [None, (), (3,), (1, 2)])
def test_shapes(densities, kind: str, masks: int, n, batch) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, masks=masks, context_features=0 if batch is None else 2)
    context = None if batch is None else torch.randn(*batch, 2, dtype=torch.float64)
    shape = (*((n,) if isinstance(n, int) else n), *(batch or ()))
    x, log_prob = model.sample_and_log_prob(n, context)
    assert x.shape == (*shape, 3) and log_prob.shape == shape and x.dtype == log_prob.dtype == torch.float64
    torch.testing.assert_close(model.log_prob(x, context), log_prob, rtol=1e-10, atol=1e-10)
    assert log_prob.requires_grad == model.conditional.reparameterised
    assert not model.sample(n, context).requires_grad


def test_samples_follow_the_conditionals_of_their_own_prefix(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    context = context_for(model, 20)
    for mask in range(4):
        x = model.sample(3, context, mask=mask, generator=torch.Generator().manual_seed(1))
        noise = model.conditional.noise((3, 20, 3), torch.float64, x.device, torch.Generator().manual_seed(1))
        outputs = model.made(model.conditional.encode(x, torch.float64), context, mask)
        torch.testing.assert_close(x, model.conditional.sampler(outputs, noise), rtol=1e-10, atol=1e-10)


def test_samples_are_of_the_mixture(densities) -> None:  # type: ignore[no-untyped-def]
    n = 20000
    for kind, values in (("bernoulli", 2), ("categorical", 3)):
        model = densities.ensemble(kind)
        expected = model.log_prob(grid(values, 3)).exp().detach()
        alone = model.log_prob(grid(values, 3), mask=0).exp().detach()
        x = model.train().sample(n)
        index = (x @ torch.tensor([values**2, values, 1], dtype=torch.float64)).long()
        found = index.bincount(minlength=values**3) / n
        # Five standard deviations of a frequency.
        bound = 5 * (expected * (1 - expected) / n).sqrt() + 1e-4
        assert ((found - expected).abs() < bound).all() and not ((alone - expected).abs() < bound).all()


def test_each_sample_costs_one_pass_of_its_own_mask(densities, kind: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    drawn = []
    sample = type(model.conditional).sample

    def counted(self, noise: Tensor, network, *args, **options):  # type: ignore[no-untyped-def]
        drawn.append((network, len(noise)))
        return sample(self, noise, network, *args, **options)

    monkeypatch.setattr(type(model.conditional), "sample", counted)
    monkeypatch.setattr(model.made, "evaluate", None)
    model.sample(100)
    assert {id(network) for network, _ in drawn} == {id(network) for network in model.made.networks}
    assert len(drawn) == 4 and sum(rows for _, rows in drawn) == 100
    with backends.use("cpu"):
        model.sample(5, mask=2)
        model.impute(densities.data(kind, 4, 3), torch.tensor([True, False, True]))


def test_a_seed_gives_the_samples_of_one_pass_per_feature(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    context = context_for(model, 20)

    def draw() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(3)
        x = model.sample(2, context, generator=generator)
        return x, model.impute(x, torch.tensor([False, True, False]), 2, context, generator=generator)

    with backends.use("reference"):
        expected = draw()
    torch.testing.assert_close(draw(), expected, rtol=1e-11, atol=1e-11)


def test_gaussian_samples_have_gradients(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("gaussian", context_features=2)
    context = context_for(model, 5).requires_grad_()

    def draw(context: Tensor) -> Tensor:
        return model.rsample(2, context, generator=torch.Generator().manual_seed(0))

    same = model.sample(2, context, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draw(context), same, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(draw, context)
    x, log_prob = model.sample_and_log_prob(2, context)
    assert all(g is not None for g in torch.autograd.grad(log_prob.sum() + x.sum(), list(model.parameters())))


def test_other_samples_have_none(densities) -> None:  # type: ignore[no-untyped-def]
    for kind in ("bernoulli", "categorical", "mixture"):
        with pytest.raises(NotImplementedError, match=r"rsample: samples of .* conditionals have no gradient"):
            densities.make(kind).rsample(2)


@pytest.mark.parametrize("masks", [1, 3])
def test_gradients(densities, kind: str, masks: int) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, masks=masks, context_features=2, hidden_features=(5,))
    names = [name for name, _ in model.named_parameters()]
    x = densities.data(kind, 4, 3)
    context = context_for(model, 4).requires_grad_()

    def log_prob(x: Tensor, context: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x, context))

    x.requires_grad_(not model.discrete)
    assert torch.autograd.gradcheck(log_prob, (x, context, *model.parameters()))


def test_config_and_copies(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    rebuilt = type(model)(**json.loads(json.dumps(model.config)), dtype=torch.float64).eval()
    rebuilt.load_state_dict(model.state_dict())
    x, context = densities.data(kind, 6, 3), context_for(model)
    for twin in (rebuilt, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.log_prob(x, context), model.log_prob(x, context))
    assert "outputs" not in model.config and "inputs" not in model.config


def test_preprocessing_is_part_of_the_density(densities) -> None:  # type: ignore[no-untyped-def]
    standardise = Standardise(3)
    standardise.mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    standardise.std.copy_(torch.tensor([0.5, 2.0, 1.0]))
    for kind in ("gaussian", "mixture"):
        for masks in (1, 3):
            before = [{"transform": "UnitInterval", "levels": 4}, Logit(0.01), copy.deepcopy(standardise)]
            model = densities.ensemble(kind, masks=masks, preprocess=before)
            plain = densities.ensemble(kind, masks=masks)
            plain.made.load_state_dict(model.made.state_dict())
            plain.made, y = model.made, 4 * torch.rand(6, 3, dtype=torch.float64)
            log_det = torch.zeros(6, dtype=torch.float64)
            z = y
            for transform in model.preprocess:
                z, log_det = transform(z, log_det=log_det)
            torch.testing.assert_close(model.log_prob(y), plain.log_prob(z) + log_det, rtol=1e-11, atol=1e-11)
            x, log_prob = model.sample_and_log_prob(5)
            torch.testing.assert_close(model.log_prob(x), log_prob, rtol=1e-8, atol=1e-8)
            rebuilt = type(model)(**json.loads(json.dumps(model.config)), dtype=torch.float64).eval()
            rebuilt.load_state_dict(model.state_dict())
            assert torch.equal(rebuilt.log_prob(y), model.log_prob(y))
            assert isinstance(rebuilt.preprocess[0], UnitInterval)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_and_autocast(densities, kind: str, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x = densities.data(kind, 20, 3).to(dtype)
    expected = model.log_prob(x.double())
    lower = copy.deepcopy(model).to(dtype)
    log_prob = lower.log_prob(x)
    assert log_prob.dtype == torch.float32
    # Outputs of size up to 4, each off by a few roundings, squared and scaled in a density.
    torch.testing.assert_close(log_prob.double(), expected, rtol=0, atol=3 * 4 * 8 * torch.finfo(dtype).eps)
    assert lower.sample(3).dtype == (torch.float32 if model.discrete else dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float().log_prob(x.float()).dtype == torch.float32
        assert model.sample(3).dtype == torch.float32


def test_integers_are_data_too(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.make(kind)
    x = torch.randint(2, (5, 3))
    for dtype in (torch.int64, torch.uint8):
        assert torch.equal(model.log_prob(x.to(dtype)), model.log_prob(x.double()))


def test_any_strides_and_batches(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, context_features=2)
    x, context = densities.data(kind, 3, 4).T, context_for(model, 4)
    expected = model.log_prob(x.contiguous(), context)
    torch.testing.assert_close(model.log_prob(x, context), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.log_prob(x[0], context), model.log_prob(x[:1].expand(4, 3), context))
    assert model.log_prob(x[:0], context[:0]).shape == (0,)
    assert model.log_prob(x.expand(2, 4, 3), context).shape == (2, 4)


def test_nan_stays_in_its_row(densities) -> None:  # type: ignore[no-untyped-def]
    for kind in ("gaussian", "mixture"):
        model = densities.ensemble(kind)
        x = densities.data(kind, 4, 3)
        expected = model.log_prob(x)
        x[1, 0] = math.nan
        log_prob = model.log_prob(x)
        assert log_prob[1].isnan() and torch.equal(log_prob[[0, 2, 3]], expected[[0, 2, 3]])


def test_compiles_into_one_graph(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind, masks=3)
    x = densities.data(kind, 6, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(compiled(x, mask=1), model(x, mask=1))


def test_compiled_training_takes_the_masks_in_turn(densities) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("bernoulli", masks=3)
    x = densities.data("bernoulli", 6, 3)
    each = [model(x, mask=mask) for mask in range(3)]
    compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
    for turn in (0, 1, 2, 0, 1):
        torch.testing.assert_close(compiled(x), each[turn])
    assert model.cycle.turn == 2


def test_training_starts_near_the_simplest_distribution(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = type(densities.make(kind))(8, hidden_features=(64, 64), **({"categories": 3} if kind == "categorical" else {}))
    x = densities.data(kind, 50, 8).float()
    log_prob = model.log_prob(x).detach()
    if model.discrete:
        uniform = torch.full((50,), -8 * math.log(3 if kind == "categorical" else 2))
        assert (log_prob - uniform).abs().max() < 0.2
    else:
        normal = torch.distributions.Normal(0, 1).log_prob(x).sum(-1)
        # A mixture is as wide as its spread components make it, by at most a factor of sqrt(2) in each feature.
        assert (log_prob - normal).mean().abs() < (0.05 if kind == "gaussian" else 8 * math.log(2) / 2)
    (-log_prob).mean()
    model.log_prob(x).mean().backward()
    assert all((p.grad != 0).any() for p in model.parameters())


def test_bad_arguments_are_named(densities, kind: str) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble(kind)
    x = densities.data(kind, 2, 3)
    for mask in (-1, 4):
        with pytest.raises(ValueError, match=f"mask: expected one of 0..3, found {mask}"):
            model.log_prob(x, mask=mask)
        with pytest.raises(ValueError, match=f"mask: expected one of 0..3, found {mask}"):
            model.sample(2, mask=mask)
    with pytest.raises(TypeError, match="x: expected a tensor, found list"):
        model.log_prob([[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 3\), found \(2, 2\)"):
        model.log_prob(x[:, :2])
    with pytest.raises(ValueError, match="n: expected at least 0 samples, found -2"):
        model.sample(-2)
    with pytest.raises(ValueError, match=r"context: expected None, found \(2, 3\)"):
        model.log_prob(x, x)


def test_bad_constructions_are_named(densities) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="preprocess: expected none with discrete features, found 1"):
        densities.make("bernoulli", preprocess=[Standardise(3)])
    with pytest.raises(ValueError, match="masks: expected 1 unless order or hidden_degrees is 'random', found 2"):
        GaussianMADE(3, masks=2)
    with pytest.raises(ValueError, match="features: expected at least 1, found 0"):
        MixtureMADE(0)
    with pytest.raises(ValueError, match="c: expected a positive number with tanh, found None"):
        MixtureMADE(3, scale_map={"kind": "tanh"})
