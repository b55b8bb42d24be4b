from __future__ import annotations

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from networks import parameters
from samples import NETWORKS, ORDER, SAMPLERS, SOFT_CLIP, case, cases, extremes, network_for
from support import SCALE_MAPS
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.reference import ConditionalSampler, MaskedLayer, MaskedNetwork

pytestmark = pytest.mark.usefixtures("cpu_backend")

every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def both(sampler: ConditionalSampler, net: MaskedNetwork, noise: Tensor, params: list[Tensor], **options) -> list[Tensor]:  # type: ignore[no-untyped-def]
    functions = (ops.autoregressive_sample, reference.autoregressive_sample)
    return [function(noise, net, params, sampler=sampler, **options) for function in functions]


@every_sampler
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("rows", [1, 7, 70])
def test_float64_equals_the_reference(cpu_variant: str, name: str, kind: str, rows: int) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS[kind])
    noise, terms, values, params = case(sampler, net, rows)
    found, expected = both(sampler, net, noise, params)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    found, expected = both(sampler, net, noise, params, context_terms=terms, given=values, known=values.shape[1] // 2)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@settings(max_examples=80, deadline=None, derandomize=True)
@drawn(chosen=cases(), rows=st.sampled_from([0, 1, 2, 3, 4, 9, 33]), context=st.booleans())
def test_random_networks_equal_the_reference(chosen, rows: int, context: bool) -> None:  # type: ignore[no-untyped-def]
    sampler, net, known = chosen
    noise, terms, values, params = case(sampler, net, rows)
    with backends.use("cpu"):
        options = {"context_terms": terms if context else None, "given": values, "known": known}
        found, expected = both(sampler, net, noise, params, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale_map", SCALE_MAPS)
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_every_scale_map(cpu_variant: str, kind: str, scale_map: str) -> None:
    sampler = ConditionalSampler(kind, 3 if kind == "mixture" else 1, SCALE_MAPS[scale_map])
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, _, params = case(sampler, net, 40)
    torch.testing.assert_close(*both(sampler, net, noise, params), rtol=1e-9, atol=1e-10)


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, 70])
def test_the_network_makes_the_same_choices_of_the_prefix(name: str, dtype: torch.dtype, rows: int) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["more features than a block"])
    noise, terms, _, params = case(sampler, net, rows, dtype=dtype)
    x = ops.autoregressive_sample(noise, net, params, sampler=sampler, context_terms=terms)
    outputs = ops.masked_mlp(sampler.encode(x, dtype), net, params, context_terms=terms)
    expected = sampler(outputs, noise)
    # Rounding could tip a choice, but none of these 1470 is that close; means and scales are of size up to 20.
    torch.testing.assert_close(x, expected, rtol=200 * torch.finfo(dtype).eps, atol=200 * torch.finfo(dtype).eps)
    if sampler.kind in ("bernoulli", "categorical"):
        assert torch.equal(x, expected)


def test_gaussian_samples_are_those_of_the_inverse() -> None:
    sampler = SAMPLERS["gaussian"]
    net = network_for(sampler, **NETWORKS["residual and direct"])
    for rows in (3, 70):
        noise, terms, _, params = case(sampler, net, rows)
        x = ops.autoregressive_sample(noise, net, params, sampler=sampler, context_terms=terms)
        options = {"scale_map": SOFT_CLIP, "context_terms": terms}
        assert torch.equal(x, ops.autoregressive_inverse(noise[..., 0], net, params, **options)[0])


@every_sampler
@pytest.mark.parametrize("rows", [3, 40])
def test_known_features_are_as_given_and_others_are_not_read(name: str, rows: int) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, values, params = case(sampler, net, rows)
    first = torch.tensor(ORDER) <= 4
    given = values.where(first, torch.nan)
    unread = noise.where(~first[:, None], torch.nan)
    x = ops.autoregressive_sample(unread, net, params, sampler=sampler, given=given, known=4)
    assert torch.equal(x[:, first], values[:, first]) and x.isfinite().all()
    assert torch.equal(x, ops.autoregressive_sample(noise, net, params, sampler=sampler, given=values, known=4))
    assert torch.equal(values, ops.autoregressive_sample(noise, net, params, sampler=sampler, given=values, known=7))
    none = ops.autoregressive_sample(noise, net, params, sampler=sampler, given=values, known=0)
    assert torch.equal(none, ops.autoregressive_sample(noise, net, params, sampler=sampler))
    # From its own first features a sample goes on as it did.
    again = ops.autoregressive_sample(noise, net, params, sampler=sampler, given=none, known=4)
    torch.testing.assert_close(again, none, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["bernoulli", "categorical", "mixture"])
@pytest.mark.parametrize("rows", [4, 144])
def test_extreme_logits_and_noise(cpu_variant: str, dtype: torch.dtype, kind: str, rows: int) -> None:
    sampler = ConditionalSampler(kind, 1 if kind == "bernoulli" else 4)
    net, params, logits, noise = extremes(sampler, dtype)
    pieces = [both(sampler, net, noise[i : i + rows], params, context_terms=logits[i : i + rows]) for i in range(0, 144, rows)]
    found, expected = (torch.cat(part) for part in zip(*pieces, strict=True))
    assert torch.equal(found, expected)
    assert ((found >= 0) & (found < sampler.size + (kind == "bernoulli"))).all() and (found == found.round()).all()
    if kind != "bernoulli":
        assert (found.view(12, 12)[5:].sum(-1) == 0).all()


@every_sampler
@pytest.mark.parametrize("rows", [6, 70])
def test_a_row_of_nan_spoils_no_other(cpu_variant: str, name: str, rows: int) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["more features than a block"])
    noise, terms, _, params = case(sampler, net, rows)
    x = ops.autoregressive_sample(noise, net, params, sampler=sampler, context_terms=terms)
    terms[5] = torch.nan
    spoilt, expected = both(sampler, net, noise, params, context_terms=terms)
    others = torch.arange(rows) != 5
    assert torch.equal(spoilt[others], x[others])
    torch.testing.assert_close(spoilt[5], expected[5], equal_nan=True)
    assert spoilt[5].isnan().all() if sampler.kind in ("gaussian", "mixture") else (spoilt[5] == 0).all()


def test_weights_outside_the_mask_are_not_read() -> None:
    sampler = SAMPLERS["categorical"]
    net = network_for(sampler, **NETWORKS["any order"])
    for rows in (3, 40):
        noise, _, _, params = case(sampler, net, rows)
        spoilt = list(params)
        for i, layer in enumerate(net.layers):
            mask = reference.degree_mask(torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees), strict=layer.strict)
            spoilt[2 * i] = torch.where(mask.bool(), params[2 * i], torch.nan)
        found = [ops.autoregressive_sample(noise, net, p, sampler=sampler) for p in (params, spoilt)]
        assert torch.equal(*found)


@every_sampler
def test_any_strides_and_batch(name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, terms, values, params = case(sampler, net, 3, 4)
    options = {"context_terms": terms, "given": values, "known": 2}
    expected = ops.autoregressive_sample(noise, net, params, sampler=sampler, **options)
    for dims in ((0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0)):
        back = [dims.index(i) for i in range(4)]
        view = noise.permute(dims).contiguous().permute(back)
        assert torch.equal(ops.autoregressive_sample(view, net, params, sampler=sampler, **options), expected)
    one = {"context_terms": terms[0, 0], "given": values[:, :1], "known": 2}
    many = {"context_terms": terms[0, 0].expand_as(terms), "given": values[:, :1].expand_as(values), "known": 2}
    found = [ops.autoregressive_sample(noise, net, params, sampler=sampler, **o) for o in (one, many)]
    assert torch.equal(*found)
    for shape in ((), (0,), (2, 0), (1, 1)):
        empty = noise.new_zeros(*shape, 7, sampler.numbers)
        assert ops.autoregressive_sample(empty, net, params, sampler=sampler).shape == (*shape, 7)


def test_the_same_bits_for_any_number_of_threads() -> None:
    sampler = SAMPLERS["mixture"]
    net = network_for(sampler, tuple(range(1, 20)), (70, 70))
    noise, terms, _, params = case(sampler, net, 100, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(ops.autoregressive_sample(noise, net, params, sampler=sampler, context_terms=terms))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@every_sampler
def test_compile(name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    plan = ops.make_network_plan(net)
    noise, terms, values, params = case(sampler, net, 6)

    def sample(noise: Tensor, terms: Tensor, values: Tensor, *params: Tensor) -> Tensor:
        options = {"context_terms": terms, "given": values, "known": 2, "plan": plan}
        return ops.autoregressive_sample(noise, net, params, sampler=sampler, **options)

    compiled = torch.compile(sample, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(noise, terms, values, *params), sample(noise, terms, values, *params))


def test_opcheck() -> None:
    sampler = SAMPLERS["categorical"]
    net = network_for(sampler, **NETWORKS["direct"])
    noise, terms, values, params = case(sampler, net, 3)
    plan = [t for layer in ops.make_network_plan(net) for t in layer]
    spec = ([layer.activation for layer in net.layers], [-1] * len(net.layers), True)
    arguments = (noise, params, terms, values, 2, plan, *spec, *sampler.code)
    torch.library.opcheck(torch.ops.fastgen.autoregressive_sample.default, arguments)


@every_sampler
def test_samples_have_no_gradient(name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, _, _, params = case(sampler, net, 5)
    for backend in ("cpu", "reference"):
        with backends.use(backend):
            x = ops.autoregressive_sample(noise, net, [p.requires_grad_() for p in params], sampler=sampler)
        assert not x.requires_grad


@every_sampler
def test_half_precision_draws_with_numbers_of_single(name: str) -> None:
    sampler = SAMPLERS[name]
    net = network_for(sampler, **NETWORKS["any order"])
    noise, terms, _, params = case(sampler, net, 5, dtype=torch.float32)
    half = [p.bfloat16() for p in params]
    with backends.use("auto"):
        found, expected = both(sampler, net, noise, half, context_terms=terms.bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    single = ops.autoregressive_sample(noise, net, params, sampler=sampler)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.autoregressive_sample(noise, net, params, sampler=sampler), single)


PLAIN = network_for(SAMPLERS["categorical"], **NETWORKS["plain"])
SIDE = MaskedNetwork((MaskedLayer((1, 2, 1, 2), (1, 2), strict=True),))
LOOSE = MaskedNetwork((MaskedLayer((1, 2), (1, 2)),))


def _arguments(**changes):  # type: ignore[no-untyped-def]
    noise, terms, values, params = case(SAMPLERS["categorical"], PLAIN, 4)
    arguments = {"noise": noise, "network": PLAIN, "params": params, "sampler": SAMPLERS["categorical"]}
    return {**arguments, "given": values, "context_terms": terms, **changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"noise": torch.zeros(4, 7, 1).int()}, TypeError, "noise: expected a floating dtype"),
        ({"noise": torch.zeros(4, 7)}, ValueError, r"noise: expected shape \(..., 7, 1\), found \(4, 7\)"),
        ({"noise": torch.zeros(4, 7, 2)}, ValueError, r"noise: expected shape \(..., 7, 1\), found \(4, 7, 2\)"),
        ({"noise": torch.zeros(4, 7, 1)}, TypeError, r"noise: expected params\[0\]'s dtype torch.float64, found torch.float32"),
        ({"given": torch.zeros(4, 7)}, TypeError, "given: expected noise's dtype torch.float64"),
        ({"given": torch.zeros(4, 6, dtype=torch.float64)}, ValueError, r"given: expected shape \(..., 7\), found \(4, 6\)"),
        ({"given": torch.zeros(3, 7, dtype=torch.float64)}, ValueError, r"given: expected a batch that broadcasts to \(4,\)"),
        ({"known": -1}, ValueError, "known: expected 0 to 7, found -1"),
        ({"known": 8}, ValueError, "known: expected 0 to 7, found 8"),
        ({"known": 1, "given": None}, ValueError, "known: expected 0 to 0, found 1"),
        ({"context_terms": torch.zeros(4, 3, dtype=torch.float64)}, ValueError, "context_terms: expected shape"),
        ({"params": []}, ValueError, "params: expected 6 tensors, found none first"),
        ({"params": parameters(PLAIN)[:4]}, ValueError, "params: expected 6 tensors, found 4"),
        ({"sampler": SAMPLERS["bernoulli"]}, ValueError, "network: expected 1 outputs of each feature's degree, in the order"),
        ({"sampler": ConditionalSampler("categorical", 7)}, ValueError, "network: expected 7 inputs of each feature's degree"),
        ({"network": SIDE, "sampler": ConditionalSampler("categorical", 2)}, ValueError, "expected 2 inputs of each feature's"),
        ({"network": LOOSE, "sampler": SAMPLERS["bernoulli"]}, ValueError, "lower degree only, found no strict layer"),
    ],
)
def test_bad_arguments_are_named(changes, error, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        ops.autoregressive_sample(**_arguments(**changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("beta",), "kind: expected one of bernoulli, categorical, gaussian, mixture, found 'beta'"),
        (("mixture", 0), "size: expected at least 1 with mixture, found 0"),
        (("bernoulli", 2), "size: expected 1 with bernoulli, found 2"),
    ],
)
def test_bad_samplers_are_named(arguments, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        ConditionalSampler(*arguments)


def _raw(change) -> None:  # type: ignore[no-untyped-def]
    """Calls the boundary itself, past the checks in Python, with one argument of `change`."""
    noise, terms, values, params = case(SAMPLERS["categorical"], PLAIN, 4)
    arguments = {
        "noise": noise.flatten(1),
        "params": params,
        "context_terms": terms,
        "given": values,
        "known": 2,
        "plan": [t for layer in ops.make_network_plan(PLAIN) for t in layer],
        "activations": ["relu", "relu", "identity"],
        "residuals": [-1, -1, -1],
        "direct": False,
        "conditional": 1,
        "size": 5,
        "kind": 0,
        "first": 0.0,
        "second": 0.0,
        "values": torch.empty_like(values),
    }
    change(arguments)
    plan = {k: arguments.pop(k) for k in ("activations", "residuals", "direct")}
    arguments["plan"] = backends.compiled().NetworkPlan(arguments["plan"], **plan)
    backends.compiled().autoregressive_sample(**arguments)


def _see_everything(arguments) -> None:  # type: ignore[no-untyped-def]
    plan = arguments["plan"]
    plan[10], plan[11] = torch.full_like(plan[10], 40), torch.zeros_like(plan[11])


def _part_a_feature(arguments) -> None:  # type: ignore[no-untyped-def]
    order = torch.arange(35, dtype=torch.int32)
    arguments["plan"][0] = order.view(5, 7).T.flatten().contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(conditional=4), "conditional: expected a kind from 0 to 3, found 4"),
        (lambda a: a.update(conditional=-1), "conditional: expected a kind from 0 to 3, found -1"),
        (lambda a: a.update(conditional=0), r"values: expected shape \(4, 35\), found \(4, 7\)"),
        (lambda a: a.update(conditional=3, size=2**29), "params: expected 1610612736 outputs per feature"),
        (lambda a: a.update(size=0), "size: expected 1 to"),
        (lambda a: a.update(size=2**40), "size: expected 1 to"),
        (lambda a: a.update(size=4), "params: expected 4 inputs per feature, found 35 in all"),
        (lambda a: a.update(size=7), "plan: expected no output to see its own feature or a later one"),
        (lambda a: a.update(kind=7), "kind: expected a scale map from 0 to 6"),
        (lambda a: a.update(known=8), "known: expected 0 to 7, found 8"),
        (lambda a: a.update(known=-1), "known: expected 0 to 7, found -1"),
        (lambda a: a.update(given=None), "known: expected 0 to 0, found 2"),
        (lambda a: a.update(given=a["given"][:, :6]), "given: expected"),
        (lambda a: a.update(noise=a["noise"][:, :6]), "noise: expected"),
        (lambda a: a.update(values=a["values"][:3]), "values: expected"),
        (lambda a: a.update(context_terms=a["context_terms"][:3]), "context_terms: expected"),
        (lambda a: a.update(params=a["params"][:4]), "params: expected 6 entries, found 4"),
        (_see_everything, "plan: expected no output to see its own feature or a later one"),
        (_part_a_feature, "plan: expected the inputs of a feature side by side"),
    ],
)
def test_the_boundary_checks_again(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        _raw(change)


def test_the_boundary_takes_what_is_right() -> None:
    _raw(lambda a: None)
