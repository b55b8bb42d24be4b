"""Models of zuko: the same numbers from the transforms that they build for every context."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_agrees, assert_as_accurate_after_training, assert_same
from torch import Tensor, nn
from torch.func import functional_call

import fastgen

# zuko switches the validation of torch's distributions off as it is imported, in a process of many tests.
_VALIDATES = torch.distributions.Distribution._validate_args
zuko = pytest.importorskip("zuko", reason="zuko is not installed")
torch.distributions.Distribution.set_default_validate_args(_VALIDATES)

D, B, C = 5, 7, 3
DTYPES = [torch.float32, torch.float64]
MAF = ("MaskedAutoregressiveTransform", "MaskedMLP", "MaskedLinear")
NETWORKS = ("MaskedMLP", "MaskedLinear")


def maf(features: int = D, context: int = 0, **options: Any) -> Any:
    torch.manual_seed(0)
    return zuko.flows.MAF(features, context, **{"transforms": 2, "hidden_features": (12, 12), **options})


def densities_and_samples(context: int = 0, features: int = D) -> Callable[[Any], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(B, features + context, generator=generator, dtype=torch.float64)

    def evaluate(flow: Any) -> list[Tensor]:
        x, c = rows.to(next(flow.parameters()).dtype).split((features, context), 1)
        given = flow(c if context else None)
        leaf = x.clone().requires_grad_()
        log_prob = given.log_prob(leaf)
        (score,) = torch.autograd.grad(log_prob.sum(), leaf, create_graph=True)
        t, one = given.transform, flow(c[0] if context else None)
        return [
            log_prob,
            score.detach(),
            *given.rsample_and_log_prob((2,)),
            one.rsample((2, 3)),
            *t.inv.call_and_ladj(x),
            t.log_abs_det_jacobian(x, t(x)),
            t.inv.log_abs_det_jacobian(t(x), x),
        ]

    return evaluate


MAFS = {
    "plain": {},
    "context": {"context": C},
    "random orders": {"randperm": True, "context": C},
    "coupling": {"passes": 2, "context": C},
    "residual": {"residual": True, "context": C},
    "residual of two widths": {"residual": True, "hidden_features": (12, 9)},
    "tanh": {"activation": nn.Tanh},
    "no hidden layers": {"hidden_features": ()},
    "wide": {"hidden_features": (200,)},
    "two features": {"features": 2},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", MAFS.values(), ids=MAFS)
def test_autoregressive_flows_agree_in_both_directions(options: dict[str, Any], dtype: torch.dtype) -> None:
    evaluate = densities_and_samples(options.get("context", 0), options.get("features", D))
    assert_agrees(maf(**options), evaluate, MAF, dtype)


def adjacency(context: int) -> Tensor:
    """Of features that come in no order, of which some do not see all of the context."""
    order = torch.tensor([2, 0, 1, 3, 3])
    edges = (order[:, None] > order) & (torch.rand(D, D, generator=torch.Generator().manual_seed(1)) < 0.8)
    seen = torch.arange(D)[:, None] >= torch.arange(context)
    return torch.cat((edges | torch.eye(D, dtype=torch.bool), seen), 1)


@pytest.mark.parametrize("context", [0, C])
def test_graphs_that_are_no_order_agree(context: int) -> None:
    torch.manual_seed(0)
    layer = zuko.flows.MaskedAutoregressiveTransform(D, context, adjacency=adjacency(context), hidden_features=(16, 16))
    x, c = torch.randn(B, D), torch.randn(B, C) if context else None

    def evaluate(m: Any) -> list[Tensor]:
        return [*m(c).call_and_ladj(x), *m(c).inv.call_and_ladj(x)]

    with torch.no_grad():
        assert_same(evaluate(fastgen.accelerate(copy.deepcopy(layer))), evaluate(layer))


def test_fewer_passes_than_features_follow_each_other_stay_the_library_s() -> None:
    flow = maf(transforms=1)
    fast, x = fastgen.accelerate(copy.deepcopy(flow)), torch.randn(B, D)
    for m in (flow, fast):
        m.transform.transforms[0].passes = 2
    assert_same([fast().transform.inv(x)], [flow().transform.inv(x)])


def test_what_it_builds_is_of_the_library_s_kind() -> None:
    flow = maf()
    transform = fastgen.accelerate(copy.deepcopy(flow)).transform.transforms[0]()
    assert isinstance(transform, zuko.transforms.AutoregressiveTransform)
    assert repr(transform.inv) == repr(flow.transform.transforms[0]().inv)
    assert transform.inv.inv is transform and transform.passes == D and transform.bijective
    # In a TransformedDistribution of torch too.
    base, x = torch.distributions.Normal(torch.zeros(D), torch.ones(D)).expand((D,)), torch.randn(B, D)
    p = torch.distributions.TransformedDistribution(base, [transform.inv])
    assert_same(
        [p.log_prob(x)], [torch.distributions.TransformedDistribution(base, [flow.transform.transforms[0]().inv]).log_prob(x)]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("context", [0, C])
def test_couplings_agree(context: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    flow = zuko.flows.RealNVP(D, context, transforms=2, hidden_features=(8,))
    assert_agrees(flow, densities_and_samples(context), ("GeneralCouplingTransform",), dtype)


@pytest.mark.parametrize("kind", ["MAF", "RealNVP"])
def test_batches_of_any_shape_agree(kind: str) -> None:
    torch.manual_seed(0)
    flow = getattr(zuko.flows, kind)(D, C, transforms=2, hidden_features=(8,))
    fast, c = fastgen.accelerate(copy.deepcopy(flow)), torch.randn(C)
    for shape in ((), (1,), (2, 3)):
        x = torch.randn(*shape, D)
        expected, found = (
            [m(c).log_prob(x), *m(c).transform.call_and_ladj(x), *m(c).transform.inv.call_and_ladj(x)] for m in (flow, fast)
        )
        assert_same(found, expected)
    for m in (flow, fast):
        with pytest.raises(RuntimeError, match="0 elements"):  # the library's answer to no rows
            m(c).log_prob(torch.randn(0, D))
    assert_same([fast(c).transform(x[:0, 0])], [flow(c).transform(x[:0, 0])])


def test_splines_keep_their_map_and_get_the_network() -> None:
    torch.manual_seed(0)
    flow = zuko.flows.NSF(D, C, transforms=1, hidden_features=(12,))
    fast = assert_agrees(flow, densities_and_samples(C), NETWORKS, torch.float64)
    left = {entry.kind.rpartition(".")[2]: entry.reason for entry in fastgen.accelerate_report(fast).left}
    assert left["MaskedAutoregressiveTransform"] == "a univariate transform that is none of fastgen's affine ones"


def test_other_slopes_and_activations_are_left_with_a_reason() -> None:
    def steep(shift: Tensor, scale: Tensor) -> Any:
        return zuko.transforms.MonotonicAffineTransform(shift, scale, slope=0.1)

    assert_agrees(maf(univariate=steep), densities_and_samples(), NETWORKS, torch.float32)
    fast = assert_agrees(maf(activation=nn.Softsign), densities_and_samples(), ("MaskedLinear",), torch.float32)
    reasons = {entry.reason for entry in fastgen.accelerate_report(fast).left}
    assert "layers or activations that fastgen does not know" in reasons


def test_a_network_alone_agrees_and_other_graphs_are_left() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, B, D)
    edges = (torch.arange(D)[:, None] > torch.arange(D)).repeat_interleave(3, 0)
    assert_agrees(zuko.nn.MaskedMLP(edges, (9, 9)), lambda m: [m(x), m(x[0, 0])], NETWORKS, torch.float32)
    cyclic = zuko.nn.MaskedMLP(torch.ones(D, D, dtype=torch.bool), (9,))
    reasons = [entry.reason for entry in fastgen.accelerate_report(cyclic).left if entry.name == ""]
    assert reasons == ["masks of no autoregressive network"]


def test_contexts_broadcast_or_fail_as_in_the_library() -> None:
    flow = maf(context=C)
    fast, x, c = fastgen.accelerate(copy.deepcopy(flow)), torch.randn(B, D), torch.randn(B, C)
    for m in (flow, fast):
        with pytest.raises(RuntimeError):
            m(c).log_prob(x[:3])
        with pytest.raises(RuntimeError):
            m(None).log_prob(x)
        with pytest.raises(RuntimeError):
            m(c.double()).log_prob(x)
    assert_same([fast(c).transform(x[0]), fast(c[0]).log_prob(x)], [flow(c).transform(x[0]), flow(c[0]).log_prob(x)])


def test_it_copies_pickles_moves_loads_compiles_and_restores() -> None:
    flow, x, c = maf(context=C), torch.randn(B, D), torch.randn(B, C)
    fast = fastgen.accelerate(copy.deepcopy(flow))
    assert list(fast.state_dict()) == list(flow.state_dict())
    expected = flow(c).log_prob(x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), fastgen.accelerate(fast), maf(1 + D, C)):
        if other.transform.transforms[0].hyper.in_features == D + C:
            assert_same([other(c).log_prob(x)], [expected])
    assert_same([fast.double()(c.double()).log_prob(x.double())], [flow.double()(c.double()).log_prob(x.double())])
    fast, flow = fast.float(), flow.float()
    transform = fast(c).transform
    assert_same([torch.compile(transform.call_and_ladj, backend="eager")(x)[0]], [flow(c).transform(x)])
    weights = {name: 0.5 * p for name, p in flow.named_parameters()}
    calls = [functional_call(m, weights, (c,)).log_prob(x) for m in (fast, flow)]
    assert_same(calls[:1], calls[1:])
    fast.load_state_dict({name: 0.5 * p if p.is_floating_point() else p for name, p in flow.state_dict().items()})
    fastgen.restore(fast)
    assert [type(m) for m in fast.modules()] == [type(m) for m in flow.modules()]
    flow.load_state_dict(fast.state_dict())
    assert_same([fast(c).log_prob(x)], [flow(c).log_prob(x)], 0)


def test_hooks_inside_still_run() -> None:
    flow, x, seen = maf(), torch.randn(B, D), []
    fast = fastgen.accelerate(copy.deepcopy(flow))
    fast.transform.transforms[0].hyper[0].register_forward_hook(lambda *_: seen.append(1))
    assert_same([fast().log_prob(x)], [flow().log_prob(x)])
    assert len(seen) == 1


def test_after_training_errors_are_no_larger() -> None:
    x = torch.randn(200, D) @ torch.randn(D, D)

    def evaluate(m: Any) -> list[Tensor]:
        p, rows = m(), x.to(next(m.parameters()).dtype)
        return [p.log_prob(rows), *p.transform.inv.call_and_ladj(rows)]

    assert_as_accurate_after_training(maf(), lambda m: -m().log_prob(x).mean(), evaluate)
