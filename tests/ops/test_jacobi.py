from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from networks import network, parameters
from support import assert_as_accurate
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.ops import _jacobi
from fastgen.ops.autoregressive_inverse import FORMS
from fastgen.reference import MaskedNetwork, ScaleMap

SOFT_CLIP = ScaleMap("soft_clip", c=2.0)
NETWORKS = {
    "plain": network(range(1, 41), (33, 40), lo=1),
    "any order": network([(7 * i) % 41 for i in range(1, 41)], (33, 40), activation="tanh"),
    "no hidden layer": network(range(40, 0, -1), ()),
    "residual and direct": network(range(1, 41), (50,) * 3, residual=True, direct=True),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch) -> Iterator[None]:
    """Tensors that no kernel takes: all of them."""
    monkeypatch.setattr(backends, "_compiled", None)
    monkeypatch.setattr(backends, "_compiled_reason", "not built for this test")
    yield


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Grows by an entry at every pass of the network in a sweep."""
    counted: list[int] = []

    def counting(v: Tensor, *args, **kwargs) -> Tensor:  # type: ignore[no-untyped-def]
        counted.append(len(v))
        return ops.masked_mlp(v, *args, **kwargs)

    monkeypatch.setattr(_jacobi, "masked_mlp", counting)
    return counted


def case(net: MaskedNetwork, rows: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """w, context_terms, log_det, and the parameters."""
    torch.manual_seed(1)
    terms = torch.randn(rows, len(net.layers[0].out_degrees), dtype=dtype)
    return [torch.randn(rows, net.features, dtype=dtype), terms, torch.randn(rows, dtype=dtype), *parameters(net, dtype)]


def call(function: Callable, net: MaskedNetwork, given: list[Tensor], form: str = "multiply") -> tuple[Tensor, Tensor]:
    w, terms, log_det, *params = given
    return function(w, net, params, form=form, scale_map=SOFT_CLIP, context_terms=terms, log_det=log_det)


def results(function: Callable, net: MaskedNetwork, given: list[Tensor], form: str = "multiply") -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in given]
    outputs = call(function, net, leaves, form)
    grads = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, leaves, grads)]


@every_network
@forms
def test_it_is_the_definition_with_all_gradients(name: str, form: str, passes: list[int]) -> None:
    net = NETWORKS[name]
    found = results(ops.autoregressive_inverse, net, case(net), form)
    expected = results(reference.autoregressive_inverse, net, case(net), form)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert 2 < len(passes) <= net.features + 2


@every_network
def test_float32_is_as_accurate_as_the_definition(name: str) -> None:
    net = NETWORKS[name]
    given = case(net, 20)
    single = [t.float() for t in given]
    truth = results(reference.autoregressive_inverse, net, given)
    found, plain = results(ops.autoregressive_inverse, net, single), results(reference.autoregressive_inverse, net, single)
    for f, p, t in zip(found, plain, truth, strict=True):
        assert_as_accurate(f, p, t)


def test_a_network_near_its_start_takes_a_few_passes(passes: list[int]) -> None:
    net = NETWORKS["plain"]
    w, terms, log_det, *params = case(net)
    params[-2:] = [0.01 * p for p in params[-2:]]
    v, _ = call(ops.autoregressive_inverse, net, [w, terms, log_det, *params])
    assert len(passes) < 15
    torch.testing.assert_close(v, call(reference.autoregressive_inverse, net, [w, terms, log_det, *params])[0])


def test_a_chain_takes_as_many_passes_as_it_has_features(passes: list[int]) -> None:
    # x_i = w_i + 0.9 x_{i-1}, by direct connections alone: what changes travels one feature a pass.
    net = network(range(1, 41), (), outputs=2)
    weight = torch.zeros(80, 40, dtype=torch.float64)
    weight[torch.arange(2, 80, 2), torch.arange(39)] = 0.9
    w = torch.randn(3, 40, dtype=torch.float64)
    v, log_det = ops.autoregressive_inverse(w, net, [weight, None], scale_map=SOFT_CLIP)
    expected = torch.zeros(3, 0, dtype=torch.float64)
    for i in range(40):
        previous = expected[:, -1:] if i else torch.zeros(3, 1, dtype=torch.float64)
        expected = torch.cat([expected, w[:, i : i + 1] + 0.9 * previous], -1)
    torch.testing.assert_close(v, expected, rtol=1e-14, atol=1e-14)
    assert len(passes) == 40 and (log_det == 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_row_and_the_features_after(bad: float) -> None:
    net = NETWORKS["any order"]
    given = case(net)
    clean = call(ops.autoregressive_inverse, net, given)
    given[0][2, 20] = bad
    found, expected = call(ops.autoregressive_inverse, net, given), call(reference.autoregressive_inverse, net, given)
    rest = [0, 1, 3, 4]
    for f, e, c in zip(found, expected, clean, strict=True):
        torch.testing.assert_close(f[2], e[2], rtol=1e-12, atol=1e-12, equal_nan=True)
        assert torch.equal(f[rest], c[rest])


def test_numbers_too_large_on_the_way_do_no_harm() -> None:
    # While v_1 is taken for 0, v_2 is w_2 e^80 and a hidden unit infinite, which a masked weight of 0 makes no number.
    net = network(range(1, 41), (39,), lo=1)
    first, last, bias = torch.zeros(39, 40), torch.zeros(80, 39), torch.zeros(80)
    first[0, 0], first[1, 1] = 1.0, 1e10
    bias[3], last[3, 0], last[4, 1] = 80.0, -80.0, 1e-10
    w = torch.randn(4, 40)
    w[:, 0], w[:, 1] = 1.0, 2.0
    v, log_det = ops.autoregressive_inverse(w, net, [first, None, last, bias])
    expected = w.clone()
    expected[:, 2] += 2
    torch.testing.assert_close((v, log_det), (expected, torch.zeros(4)))


@pytest.mark.parametrize("shape", [(0, 40), (40,), (2, 3, 40)])
def test_batches_of_any_shape(shape: tuple[int, ...]) -> None:
    net = NETWORKS["plain"]
    params, w = parameters(net), torch.randn(shape, dtype=torch.float64)
    found = ops.autoregressive_inverse(w, net, params, scale_map=SOFT_CLIP)
    torch.testing.assert_close(found, reference.autoregressive_inverse(w, net, params, scale_map=SOFT_CLIP))
    assert found[0].shape == shape and found[1].shape == shape[:-1]


@pytest.mark.parametrize("output", [0, 1])
def test_gradients_of_one_output_alone(output: int) -> None:
    net = NETWORKS["plain"]

    def gradient(function: Callable) -> Tensor:
        given = case(net)
        given[0].requires_grad_()
        return torch.autograd.grad(call(function, net, given)[output].square().sum(), given[0])[0]

    torch.testing.assert_close(
        gradient(ops.autoregressive_inverse), gradient(reference.autoregressive_inverse), rtol=1e-11, atol=1e-11
    )


def test_double_backward() -> None:
    net = network(range(1, 33), (20,), activation="tanh")

    def second(function: Callable) -> tuple[Tensor, ...]:
        leaves = [t.requires_grad_() for t in case(net, 2)]
        grads = torch.autograd.grad(sum(y.square().sum() for y in call(function, net, leaves)), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), [leaves[0], *leaves[3:]], allow_unused=True)

    torch.testing.assert_close(
        second(ops.autoregressive_inverse), second(reference.autoregressive_inverse), rtol=1e-9, atol=1e-9
    )


def test_autocast_changes_nothing() -> None:
    net = NETWORKS["plain"]
    given = case(net, dtype=torch.float32)
    expected = results(ops.autoregressive_inverse, net, given)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(results(ops.autoregressive_inverse, net, given), expected, strict=True))


def test_half_precision() -> None:
    net = NETWORKS["plain"]
    given = [t.bfloat16() for t in case(net)]
    given[2] = given[2].float()
    v, log_det = call(ops.autoregressive_inverse, net, given)
    assert (v.dtype, log_det.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close((v, log_det), call(reference.autoregressive_inverse, net, given), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("why", ["few features", "by name", "functorch"])
def test_where_the_definition_runs(why: str, passes: list[int]) -> None:
    net = network(range(1, 8), (9,)) if why == "few features" else NETWORKS["plain"]
    params, w = parameters(net), torch.randn(3, net.features, dtype=torch.float64)
    expected = reference.autoregressive_inverse(w, net, params)[0]
    with backends.use("reference" if why == "by name" else "auto"):
        one = lambda row: ops.autoregressive_inverse(row, net, params)[0]  # noqa: E731
        found = torch.func.vmap(one)(w) if why == "functorch" else one(w)
    assert not passes
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_graph_of_the_sweeps_is_not_kept() -> None:
    net = NETWORKS["plain"]
    given = [t.requires_grad_() for t in case(net)]
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        call(ops.autoregressive_inverse, net, given)
    # w, the context's part, v and the parameters: no more than the definition saves for two features.
    assert len(saved) <= 3 + len(given)
