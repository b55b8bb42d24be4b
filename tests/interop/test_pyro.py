"""Models of Pyro: the same numbers in both directions, its caches, and a guide in stochastic variational inference."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from agreement import assert_agrees, assert_as_accurate_after_training, assert_same
from torch import Tensor, nn

import fastgen

pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro
import pyro.distributions as dist
from pyro.distributions import transforms
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN

D, B, C = 5, 7, 3
DTYPES = [torch.float32, torch.float64]
AFFINE = ("AffineAutoregressive", "AutoRegressiveNN", "MaskedLinear")
CONDITIONAL = ("ConditionalAffineAutoregressive", "ConditionalAutoRegressiveNN", "MaskedLinear")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Pyro's inverse works in the default dtype alone."""
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def affine(features: int = D, **options: Any) -> Any:
    torch.manual_seed(0)
    return transforms.AffineAutoregressive(AutoRegressiveNN(features, [12, 12], **options))


def both_directions(context: int = 0, features: int = D) -> Callable[[Any], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(B, features + context, generator=generator, dtype=torch.float64)

    def evaluate(m: Any) -> list[Tensor]:
        x, c = rows.to(next(m.parameters()).dtype).split((features, context), 1)
        t = m.condition(c) if context else m
        y = t(x)
        found = [y, t.log_abs_det_jacobian(x, y)]
        z = x.clone().requires_grad_()
        back = t.inv(z)
        found += [back, t.log_abs_det_jacobian(back, z), t.inv.log_abs_det_jacobian(z, back)]
        (gradient,) = torch.autograd.grad(found[-1].sum() + back.cos().sum(), z, retain_graph=True)
        return [*found, gradient]

    return evaluate


NETWORKS = {
    "plain": {},
    "order": {"permutation": torch.tensor([3, 0, 4, 1, 2])},
    "skip": {"skip_connections": True},
    "elu": {"nonlinearity": nn.ELU()},
    "two features": {"features": 2},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_autoregressive_transforms_agree_in_both_directions(options: dict[str, Any], dtype: torch.dtype) -> None:
    assert_agrees(affine(**options), both_directions(features=options.get("features", D)), AFFINE, dtype)


def test_one_feature_agrees() -> None:
    with pytest.warns(UserWarning, match="input_dim = 1"):
        layer = affine(1)
    assert_agrees(layer, both_directions(features=1), AFFINE, torch.float32)


def test_conditional_transforms_agree_in_both_directions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = transforms.conditional_affine_autoregressive(D, C, [12, 12])
    fast = assert_agrees(layer, both_directions(C), CONDITIONAL, dtype)
    assert fastgen.accelerate_report(fast.condition(torch.zeros(C))).replaced


def test_batches_of_any_shape_agree() -> None:
    torch.manual_seed(0)
    layer = transforms.conditional_affine_autoregressive(D, C, [12])
    fast, c = fastgen.accelerate(copy.deepcopy(layer)), torch.randn(C)
    for shape in ((), (0,), (2, 0), (2, 3)):
        y = torch.randn(*shape, D)
        expected, found = (
            [(x := t.inv(y)), t.log_abs_det_jacobian(x, y), t(y)] for t in (layer.condition(c), fast.condition(c))
        )
        assert_same(found, expected)


def test_clipped_scales_and_their_gradients_agree(dtype: torch.dtype) -> None:
    layer = affine()
    layer.log_scale_min_clip, layer.log_scale_max_clip = -0.05, 0.02
    assert_agrees(layer, both_directions(), AFFINE, dtype)


def test_both_directions_of_a_distribution_agree() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList([affine(), affine(permutation=torch.arange(D).flip(0))])
    base, x = dist.Normal(torch.zeros(D), torch.ones(D)).to_event(1), torch.randn(B, D)

    def evaluate(m: Any) -> list[Tensor]:
        iaf, maf = dist.TransformedDistribution(base, list(m)), dist.TransformedDistribution(base, [t.inv for t in m])
        sampled = iaf.rsample((B,))
        return [iaf.log_prob(x.clone()), maf.log_prob(x.clone()), maf.rsample((2, 3)), sampled, iaf.log_prob(sampled)]

    assert_agrees(layers, evaluate, AFFINE, torch.float32)
    found = fastgen.accelerate(dist.TransformedDistribution(base, [affine().inv, affine()]))
    assert len([entry for entry in fastgen.accelerate_report(found).replaced if "AffineAuto" in entry.kind]) == 2


def test_caches_serve_what_they_served() -> None:
    t = fastgen.accelerate(affine())
    y = torch.randn(B, D)
    x = t.inv(y)
    assert t(x) is y and t.inv(y) is x  # the identity cache
    assert_same([t.log_abs_det_jacobian(x, y)], [affine().log_abs_det_jacobian(x, y)])
    assert_same([t._cached_log_scale.sum(-1)], [t.log_abs_det_jacobian(x, y)])
    log_det = fastgen.restore(t).log_abs_det_jacobian(x, y)
    assert_same([log_det], [affine().log_abs_det_jacobian(x, y)])
    y = t(x.clone())
    assert t._cached_log_scale.shape == y.shape


def test_networks_alone_agree() -> None:
    torch.manual_seed(0)
    x, c = torch.randn(2, B, D), torch.randn(C)
    for dims, skip in (([1], False), ([1, 1], True), ([2, 3], False), ([3], False)):
        net = AutoRegressiveNN(D, [9], param_dims=dims, skip_connections=skip)
        assert_agrees(net, lambda m: [t for t in _list(m(x))], ("AutoRegressiveNN", "MaskedLinear"), torch.float32)
        given = ConditionalAutoRegressiveNN(D, C, [9], param_dims=dims)
        assert_agrees(given, lambda m: [t for t in _list(m(x, c))], CONDITIONAL[1:], torch.float32)


def _list(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


def test_what_would_change_results_is_left_with_a_reason() -> None:
    stable = affine()
    stable = transforms.AffineAutoregressive(stable.arn, stable=True)
    fast = assert_agrees(stable, both_directions(), AFFINE[1:], torch.float32)
    (left,) = fastgen.accelerate_report(fast).left
    assert left.reason == "its stable variant, whose shift depends on its scale"
    skips = ConditionalAutoRegressiveNN(D, C, [9], skip_connections=True)
    reasons = {entry.name: entry.reason for entry in fastgen.accelerate_report(skips).left}
    assert reasons[""] == "a context through skip connections"
    unknown = transforms.AffineAutoregressive(AutoRegressiveNN(D, [9], nonlinearity=nn.Softsign()))
    reasons = {entry.name: entry.reason for entry in fastgen.accelerate_report(unknown).left}
    assert reasons[""] == "its network is left: an activation that fastgen does not know"


@pytest.mark.parametrize("kind", ["Planar", "Radial"])
def test_planar_and_radial_transforms_agree(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = getattr(transforms, kind)(D), torch.randn(2, B, D)

    def evaluate(m: Any) -> list[Tensor]:
        y = m(x.to(next(m.parameters()).dtype))
        return [y, m.log_abs_det_jacobian(*m._cached_x_y), m._cached_logDetJ]

    fast = assert_agrees(layer, evaluate, (kind,), dtype)
    with pytest.raises(KeyError, match="intermediates cache"):
        fast.inv(x)


def test_errors_stay_the_library_s() -> None:
    layer = affine()
    fast = fastgen.accelerate(copy.deepcopy(layer))
    calls: list[Callable[[Any], Any]] = [
        lambda m: m.inv(torch.randn(B, D).double()),
        lambda m: m(torch.randn(B, D + 1)),
        lambda m: m.inv(torch.randn(B, D + 1)),
    ]
    for call in calls:
        with pytest.raises(Exception) as expected:
            call(layer)
        with pytest.raises(type(expected.value)) as found:
            call(fast)
        assert str(found.value) == str(expected.value)


def test_it_copies_pickles_loads_and_restores() -> None:
    for layer, context in ((affine(), 0), (transforms.conditional_affine_autoregressive(D, C, [12]), C)):
        evaluate = both_directions(context)
        fast = fastgen.accelerate(copy.deepcopy(layer))
        assert list(fast.state_dict()) == list(layer.state_dict()) and hash(fast) is not None
        for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), fastgen.accelerate(fast)):
            assert_same(evaluate(other), evaluate(layer))
        with torch.no_grad():
            for p in layer.parameters():
                p.mul_(1.5)
        fast.load_state_dict(layer.state_dict())
        assert_same(evaluate(fast), evaluate(layer))
        fastgen.restore(fast)
        assert [type(m) for m in fast.modules()] == [type(m) for m in layer.modules()]


def test_the_inverse_compiles_as_one_graph_which_the_library_s_does_not() -> None:
    layer, y = affine(), torch.randn(B, D)
    fast = fastgen.accelerate(copy.deepcopy(layer))
    compiled = torch.compile(lambda y: (fast._inverse(y), fast._cached_log_scale.sum(-1)), backend="eager", fullgraph=True)
    assert_same(compiled(y), [(x := layer.inv(y)), layer.log_abs_det_jacobian(x, y)])


def test_hooks_and_autocast_run_the_library_s_code() -> None:
    layer, y, seen = affine(), torch.randn(B, D), []
    fast = fastgen.accelerate(copy.deepcopy(layer))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same([fast.arn(y)[0]], [layer.arn(y)[0]], 0)
    fast.arn.layers[0].register_forward_hook(lambda *_: seen.append(1))
    assert_same([fast.inv(y)], [layer.inv(y)])
    assert len(seen) == D


def test_a_guide_learns_the_same() -> None:
    def losses(accelerated: bool) -> list[float]:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        layer = affine()
        layer = fastgen.accelerate(layer) if accelerated else layer
        base = dist.Normal(torch.zeros(D), torch.ones(D)).to_event(1)

        def model() -> None:
            z = pyro.sample("z", base)
            pyro.sample("x", dist.Normal(z.sum(), 0.5), obs=torch.tensor(2.0))

        def guide() -> None:
            pyro.module("flow", layer)
            pyro.sample("z", dist.TransformedDistribution(base, [layer]))

        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
        return [svi.step() for _ in range(20)]

    found, expected = losses(True), losses(False)
    assert_same([torch.tensor(found)], [torch.tensor(expected)], 1e-4)


def test_after_training_errors_are_no_larger() -> None:
    x = torch.randn(200, D) @ torch.randn(D, D)

    def evaluate(m: Any) -> list[Tensor]:
        dtype = next(m.parameters()).dtype
        torch.set_default_dtype(dtype)
        try:
            y = x.to(dtype)
            return [(z := m.inv(y)), m.log_abs_det_jacobian(z, y)]
        finally:
            torch.set_default_dtype(torch.float32)

    def loss(m: Any) -> Tensor:
        z = m(x.clone())
        return z.square().sum(-1).mean() - 2 * m.log_abs_det_jacobian(*m._cached_x_y).mean()

    assert_as_accurate_after_training(affine(), lambda m: _cleared(m, loss), evaluate)


def _cleared(m: Any, loss: Callable[[Any], Tensor]) -> Tensor:
    """A loss, without what the caches hold: results with gradients cannot be copied."""
    found = loss(m)
    m._cached_x_y, m._cached_log_scale = (None, None), None
    return found
