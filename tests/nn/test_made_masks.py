from __future__ import annotations

import copy
import itertools
import json
import pickle

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from fastgen import backends
from fastgen.nn import MADE

KINDS = [("random", "spread"), ("random", "random"), ("natural", "random")]


def generic(**options) -> MADE:  # type: ignore[no-untyped-def]
    """A MADE of several masks in float64 whose parameters are all far from zero."""
    options = {"features": 5, "hidden_features": (16, 16), "masks": 4, "order": "random", "activation": "tanh", **options}
    made = MADE(**options, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.7)
    return made


def allowed(degrees: Tensor, outputs: int, inputs: int) -> Tensor:
    """(D, P, D C): whether an output may depend on a column."""
    return (degrees.repeat_interleave(inputs) < degrees[:, None])[:, None].expand(-1, outputs, -1)


@pytest.mark.parametrize(("order", "degrees"), KINDS)
@pytest.mark.parametrize("residual", [False, True])
def test_under_every_mask_outputs_depend_on_the_features_before_and_on_no_other(
    order: str, degrees: str, residual: bool
) -> None:
    torch.manual_seed(0)
    for features, context_features, inputs in itertools.product((1, 5), (0, 2), (1, 3)):
        made = generic(
            features=features,
            context_features=context_features,
            inputs=inputs,
            order=order,
            hidden_degrees=degrees,
            residual=residual,
            direct=residual,
        )
        x = torch.randn(features * inputs, dtype=torch.float64)
        context = torch.randn(context_features, dtype=torch.float64) if context_features else None
        for mask in range(4):
            depends = jacobian(lambda t: made(t, context, mask), x) != 0  # noqa: B023
            assert torch.equal(depends, allowed(made.orders[mask], 2, inputs)), made.config


@pytest.mark.parametrize(("order", "degrees"), KINDS)
@pytest.mark.parametrize("residual", [False, True])
def test_every_mask_has_the_reference_s_values_and_gradients(order: str, degrees: str, residual: bool) -> None:
    torch.manual_seed(0)
    made = generic(order=order, hidden_degrees=degrees, context_features=2, inputs=2, residual=residual, direct=True)
    x = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    context = torch.randn(7, 2, dtype=torch.float64)
    for mask in range(4):
        results = []
        for backend in ("auto", "reference"):
            with backends.use(backend) if backend == "reference" else torch.enable_grad():
                y = made(x, context, mask)
                results.append((y, *torch.autograd.grad(y.square().sum(), (x, *made.parameters()))))
        for ours, truth in zip(*results, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-11, atol=1e-11)


def test_masks_are_different_and_the_first_is_that_of_one_mask() -> None:
    torch.manual_seed(0)
    many = generic(hidden_degrees="random", seed=3)
    one = generic(hidden_degrees="random", seed=3, masks=1)
    assert one.network.layers == many.networks[0].layers and torch.equal(one.degrees, many.degrees)
    assert many.network is many.networks[0] and many.degrees is many.orders[0]
    assert len({tuple(order.tolist()) for order in many.orders}) == 4
    assert len({network.layers[0].out_degrees for network in many.networks}) == 4
    # What a seed means may never change: models are rebuilt from it.
    assert [order.tolist() for order in many.orders[1:3]] == [[4, 2, 5, 1, 3], [3, 2, 5, 1, 4]]


def test_a_unit_has_unrelated_degrees_in_different_masks() -> None:
    made = MADE(50, hidden_features=(400,), hidden_degrees="random", masks=3, seed=0)
    degrees = torch.tensor([network.layers[0].out_degrees for network in made.networks]).double()
    # The correlation of 400 independent pairs has a standard deviation of 0.05.
    assert (degrees.corrcoef() - torch.eye(3, dtype=torch.float64)).abs().max() < 0.25
    assert all(set(row.tolist()) == set(range(1, 50)) for row in degrees)


def test_random_orders_alone_leave_hidden_degrees_spread() -> None:
    made = MADE(6, hidden_features=(9, 9), order="random", masks=3)
    assert len({network.layers[0].out_degrees for network in made.networks}) == 1


def test_config_builds_all_masks_again() -> None:
    made = generic(hidden_degrees="random", inputs=2)
    twin = MADE(**json.loads(json.dumps(made.config)), dtype=torch.float64)
    twin.load_state_dict(made.state_dict())
    x = torch.randn(3, 10, dtype=torch.float64)
    for mask in range(4):
        assert torch.equal(twin(x, mask=mask), made(x, mask=mask))


def test_copies_pickles_and_moves_make_every_plan() -> None:
    made = generic(hidden_degrees="random")
    x = torch.randn(3, 5, dtype=torch.float64)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert len(twin._plan) == 4 and twin._plan[0][0].prefix is not made._plan[0][0].prefix
        assert all(torch.equal(twin(x, mask=mask), made(x, mask=mask)) for mask in range(4))
    meta = copy.deepcopy(made).to("meta")
    assert {plan[0].prefix.device.type for plan in meta._plan} == {"meta"}


def test_a_call_makes_no_plan(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    made = generic(hidden_degrees="random")
    monkeypatch.setattr("fastgen.ops._plan.make_plan", None)
    for mask in range(4):
        made(torch.randn(3, 5, dtype=torch.float64), mask=mask).sum().backward()


def test_initial_outputs_have_one_size_over_the_masks() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 64)

    def variance(mask: int, **options) -> Tensor:  # type: ignore[no-untyped-def]
        return MADE(64, order="random", outputs=8, seed=0, **options)(x, mask=mask).detach().var(0).mean()

    one = variance(0, hidden_features=())
    # A mean over 512 outputs of 400 rows; the one draw of the weights makes most of the difference.
    assert abs(sum(float(variance(m, hidden_features=(), masks=16) / one) for m in range(16)) / 16 - 1) < 0.1
    # In a deep network too no mask stands out, the first neither; drawn for its fan-ins alone they differ 16 times.
    made = MADE(64, hidden_features=(128, 128), order="random", hidden_degrees="random", masks=16, seed=0)
    sizes = torch.stack([made(x, mask=mask).detach().var(0).mean() for mask in range(16)])
    assert float(sizes.max() / sizes.min()) < 2


@pytest.mark.parametrize("hidden", [(), (9,), (16, 16)])
def test_other_orders_over_the_same_weights(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    made = generic(hidden_features=hidden, inputs=2, direct=True)
    x = torch.randn(10, dtype=torch.float64)
    degrees = torch.tensor([2, 5, 1, 4, 3])
    other = made.reordered(degrees, x.device)
    assert torch.equal(jacobian(lambda t: made.evaluate(t, None, other), x) != 0, allowed(degrees, 2, 2))
    assert made.reordered(degrees.clone(), x.device) is other
    assert copy.deepcopy(made).reordered(degrees, x.device) is not other
    assert torch.equal(made.evaluate(x, None, made.reordered(made.degrees, x.device)), made(x))


def test_compiles_with_a_mask() -> None:
    made = generic(hidden_degrees="random")
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    for mask in range(3):
        torch.testing.assert_close(compiled(x, mask=mask), made(x, mask=mask))
        (grad,) = torch.autograd.grad(compiled(x, mask=mask).square().sum(), x)
        torch.testing.assert_close(grad, torch.autograd.grad(made(x, mask=mask).square().sum(), x)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 0}, "masks: expected at least 1, found 0"),
        ({"inputs": 0}, "inputs: expected at least 1, found 0"),
        ({"masks": 2}, "masks: expected 1 unless order or hidden_degrees is 'random', found 2"),
        ({"masks": 2, "order": [2, 1, 3]}, "masks: expected 1 unless order or hidden_degrees is 'random', found 2"),
        ({"masks": 2, "hidden_degrees": "random", "hidden_features": ()}, "masks: expected 1 unless"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MADE(**{"features": 3, "hidden_features": (4,), **options})


def test_masks_there_are_not_are_named() -> None:
    for mask in (-1, 4):
        with pytest.raises(ValueError, match=f"mask: expected one of 0..3, found {mask}"):
            generic()(torch.zeros(5, dtype=torch.float64), mask=mask)
