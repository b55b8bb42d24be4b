from __future__ import annotations

import copy
import itertools
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import jacobian

from fastgen.nn import MADE


def generic(**options) -> MADE:  # type: ignore[no-untyped-def]
    """A MADE in float64 whose parameters are all far from zero."""
    made = MADE(**{"dtype": torch.float64, "activation": "tanh", **options})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.7)
    return made


def plain(made: MADE, x: Tensor, context: Tensor | None = None) -> Tensor:
    """The same network in plain PyTorch: masks as matrices, W * M in every layer."""
    act = getattr(torch, made.config["activation"])

    def linear(layer: torch.nn.Module, h: Tensor) -> Tensor:
        seen = layer.in_degrees < layer.out_degrees[:, None] if layer.strict else layer.in_degrees <= layer.out_degrees[:, None]
        return F.linear(h, layer.weight * seen, layer.bias)

    *hidden, last = made.layers
    h = x
    for i, layer in enumerate(hidden):
        if made.config["residual"] and i > 0:
            if i % 2 == 0:
                continue
            h = h + linear(hidden[i + 1], act(linear(layer, act(h))))
        else:
            h = linear(layer, h)
            h = h + context @ made.context.weight.T if i == 0 and context is not None else h
            h = h if made.config["residual"] else act(h)
    out = linear(last, h)
    if not hidden and context is not None:
        out = out + context @ made.context.weight.T
    if made.direct is not None:
        out = out + linear(made.direct, x)
    return out.unflatten(-1, (made.features, made.outputs))


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_outputs_depend_on_all_features_before_and_on_no_other(direct: bool, residual: bool) -> None:
    torch.manual_seed(0)
    for features, hidden, context_features, order, degrees in itertools.product(
        (1, 2, 5), ((), (7,), (16, 16)), (0, 3), ("natural", "reversed", "random", "list"), ("spread", "random")
    ):
        made = generic(
            features=features,
            hidden_features=hidden,
            context_features=context_features,
            order=(torch.randperm(features) + 1).tolist() if order == "list" else order,
            hidden_degrees=degrees,
            direct=direct,
            residual=residual,
        )
        x = torch.randn(features, dtype=torch.float64)
        context = torch.randn(context_features, dtype=torch.float64) if context_features else None
        allowed = (made.degrees < made.degrees[:, None])[:, None].expand(features, 2, features)
        assert torch.equal(jacobian(lambda t: made(t, context), x) != 0, allowed), made.config  # noqa: B023
        if context is not None:
            assert (jacobian(lambda t: made(x, t), context) != 0).all(), made.config  # noqa: B023


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("hidden", [(), (9,), (16, 16)])
@pytest.mark.parametrize("context_features", [0, 2])
def test_equals_plain_pytorch(residual: bool, hidden: tuple[int, ...], context_features: int) -> None:
    torch.manual_seed(0)
    for direct, activation in itertools.product((False, True), ("relu", "tanh")):
        made = generic(
            features=6,
            hidden_features=hidden,
            context_features=context_features,
            outputs=3,
            activation=activation,
            order="random",
            direct=direct,
            residual=residual,
        )
        x = torch.randn(4, 6, dtype=torch.float64)
        context = torch.randn(4, 2, dtype=torch.float64) if context_features else None
        torch.testing.assert_close(made(x, context), plain(made, x, context), rtol=1e-12, atol=1e-12)


def test_hidden_degrees_are_equally_spread() -> None:
    made = MADE(4, hidden_features=(7,))
    assert made.network.layers[0].out_degrees == (1, 1, 1, 2, 2, 3, 3)
    assert MADE(4, hidden_features=(7,), context_features=1).network.layers[0].out_degrees == (0, 0, 1, 1, 2, 2, 3)
    assert MADE(1, hidden_features=(3,)).network.layers[0].out_degrees == (0, 0, 0)


def test_random_hidden_degrees_are_sorted_and_hold_every_degree_where_there_is_room() -> None:
    made = MADE(9, hidden_features=(8, 40, 3), hidden_degrees="random", seed=5)
    for layer, least in zip(made.network.layers[:-1], (8, 8, 1), strict=True):
        degrees = list(layer.out_degrees)
        assert degrees == sorted(degrees) and degrees[0] == 1 and degrees[-1] <= 8 and len(set(degrees)) >= least


def test_the_first_feature_sees_the_context_through_one_unit() -> None:
    for degrees in ("spread", "random"):
        made = generic(features=5, hidden_features=(1, 1), context_features=2, hidden_degrees=degrees)
        grad = jacobian(lambda c: made(torch.zeros(5, dtype=torch.float64), c), torch.randn(2, dtype=torch.float64))  # noqa: B023
        assert (grad != 0).all()


def test_orders() -> None:
    assert MADE(3, hidden_features=(4,)).degrees.tolist() == [1, 2, 3]
    assert MADE(3, hidden_features=(4,), order="reversed").degrees.tolist() == [3, 2, 1]
    for order in ([2, 3, 1], torch.tensor([2, 3, 1])):
        assert MADE(3, hidden_features=(4,), order=order).degrees.tolist() == [2, 3, 1]
    shuffled = MADE(50, hidden_features=(4,), order="random", seed=3).degrees
    assert shuffled.sort().values.tolist() == list(range(1, 51))
    # What a seed means may never change: models are rebuilt from it.
    assert shuffled[:5].tolist() == [7, 26, 22, 6, 38]


def test_torch_seed_rules_random_orders_and_parameters() -> None:
    def build() -> MADE:
        torch.manual_seed(7)
        return MADE(20, hidden_features=(30,), order="random", hidden_degrees="random")

    one, other = build(), build()
    assert one.network.layers == other.network.layers
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.degrees, MADE(20, hidden_features=(30,), order="random").degrees)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
def test_contexts_broadcast(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    made = generic(features=3, hidden_features=(8,), context_features=2)
    x = torch.randn(*shape, 3, dtype=torch.float64)
    context = torch.randn(2, dtype=torch.float64)
    assert made(x, context).shape == (*shape, 3, 2)
    torch.testing.assert_close(made(x, context), made(x, context.expand(*shape, 2)), rtol=1e-13, atol=1e-13)
    columns = torch.randn(*shape[-1:], 2, dtype=torch.float64)
    torch.testing.assert_close(made(x, columns), plain(made, x, columns.expand(*shape, 2)), rtol=1e-12, atol=1e-12)


def test_any_strides_give_the_same() -> None:
    made = generic(features=5, hidden_features=(8,))
    x = torch.randn(5, 4, dtype=torch.float64).T
    torch.testing.assert_close(made(x), made(x.contiguous()), rtol=1e-13, atol=1e-13)
    assert made(x[:0]).shape == (0, 5, 2)
    row = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(made(row.expand(6, 5)), made(row).expand(6, 5, 2), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("hidden", [(), (32, 32)])
def test_a_network_starts_small_and_no_gradient_is_zero(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    made = MADE(8, hidden_features=hidden, context_features=2, residual=True, direct=True, activation="tanh")
    x, context = torch.randn(64, 8), torch.randn(2)
    assert made(x, context).abs().max() < 0.1
    made(x, context).square().sum().backward()
    assert all((p.grad != 0).any() for p in made.parameters())


def test_config_builds_the_same_network() -> None:
    made = generic(
        features=6,
        hidden_features=(9, 9),
        context_features=2,
        order="random",
        hidden_degrees="random",
        direct=True,
        residual=True,
    )
    twin = MADE(**json.loads(json.dumps(made.config)), dtype=torch.float64)
    twin.load_state_dict(made.state_dict())
    x, context = torch.randn(4, 6, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    assert torch.equal(twin(x, context), made(x, context))
    assert MADE(**MADE(3, order=torch.tensor([2, 3, 1])).config).degrees.tolist() == [2, 3, 1]


def test_copies_pickles_and_functional_calls() -> None:
    made = generic(features=4, hidden_features=(9,), direct=True)
    x = torch.randn(3, 4, dtype=torch.float64)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin(x), made(x))
    doubled = {name: 2 * p for name, p in made.named_parameters()}
    called = torch.func.functional_call(made, doubled, (x,))
    made.load_state_dict(doubled)
    assert torch.equal(called, made(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made = generic(features=4, hidden_features=(16,), context_features=2)
    x, context = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    y = copy.deepcopy(made).to(dtype)(x.to(dtype), context.to(dtype))
    assert y.dtype == dtype
    # Three roundings of sums of about 16 terms of size 1.
    torch.testing.assert_close(y.double(), made(x, context), rtol=0, atol=30 * torch.finfo(dtype).eps)


def test_autocast_answers_in_its_dtype() -> None:
    made = MADE(4, hidden_features=(16,), context_features=2)
    with torch.autocast("cpu", torch.bfloat16):
        y = made(torch.randn(8, 4), torch.randn(8, 2))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters())


def test_differentiates_twice() -> None:
    torch.manual_seed(0)
    made = generic(features=3, hidden_features=(5,), context_features=2, direct=True)
    x, context = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(made, (x.requires_grad_(), context.requires_grad_()))


@pytest.mark.parametrize("context_features", [0, 2])
def test_compiles_into_one_graph(context_features: int) -> None:
    made = generic(features=4, hidden_features=(9,), context_features=context_features)
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, dtype=torch.float64) if context_features else None
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), made(x, context))
    inputs = (x, *made.parameters())
    grads = torch.autograd.grad(compiled(x, context).square().sum(), inputs)
    expected = torch.autograd.grad(made(x, context).square().sum(), inputs)
    for grad, truth in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features: expected at least 1, found 0"),
        ({"context_features": -1}, "context_features: expected at least 0, found -1"),
        ({"outputs": 0}, "outputs: expected at least 1, found 0"),
        ({"hidden_features": (4, 0)}, r"hidden_features: expected widths of at least 1, found \(4, 0\)"),
        ({"hidden_features": (4, 5), "residual": True}, "hidden_features: expected equal widths"),
        ({"order": "sorted"}, "order: expected one of natural, reversed, random or a permutation, found 'sorted'"),
        ({"order": [1, 1, 3]}, r"order: expected a permutation of 1..3, found \[1, 1, 3\]"),
        ({"order": [0, 1, 2]}, r"order: expected a permutation of 1..3, found \[0, 1, 2\]"),
        ({"order": [1, 2]}, r"order: expected a permutation of 1..3, found \[1, 2\]"),
        ({"order": [1.0, 2.0, 3.0]}, "order: expected a permutation of 1..3"),
        ({"hidden_degrees": "even"}, "hidden_degrees: expected one of spread, random, found 'even'"),
        ({"activation": "swish"}, "activation: expected one of identity"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MADE(**{"features": 3, "hidden_features": (4,), **options})


def test_a_single_width_is_named() -> None:
    with pytest.raises(TypeError, match="hidden_features: expected a sequence of widths, found 64"):
        MADE(3, hidden_features=64)  # type: ignore[arg-type]


def test_bad_contexts_are_named() -> None:
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"context: expected shape \(..., 2\), found None"):
        MADE(3, hidden_features=(4,), context_features=2)(x)
    with pytest.raises(ValueError, match=r"context: expected shape \(..., 2\), found \(2, 3\)"):
        MADE(3, hidden_features=(4,), context_features=2)(x, x)
    with pytest.raises(ValueError, match=r"context: expected None, found \(2, 3\)"):
        MADE(3, hidden_features=(4,))(x, x)
    with pytest.raises(TypeError, match=r"context: expected the weight's dtype torch.float32, found torch.float64"):
        MADE(3, hidden_features=(4,), context_features=2)(x, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"context: expected a floating dtype, found torch.int64"):
        MADE(3, hidden_features=(4,), context_features=2)(x, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 3\)"):
        MADE(3, hidden_features=(4,))(torch.randn(2, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_plans_follow_to_cuda_and_back() -> None:
    made = generic(features=4, hidden_features=(9, 9), residual=True, direct=True)
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = made(x)
    for device in ("cuda", "cpu"):
        made.to(device)
        assert {t.device.type for plan in made._plan[0] for t in plan if t is not None} == {device}
        twin = copy.deepcopy(made)
        torch.testing.assert_close(twin(x.to(device)).cpu(), expected, rtol=1e-11, atol=1e-11)
