from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from fastgen.flows import Composed, Inverse, MaskedAutoregressiveTransform, Permutation
from fastgen.ops import ScaleMap

OPTIONS = [
    {},
    {"hidden_features": ()},
    {"order": "random", "hidden_degrees": "random", "direct": True},
    {"order": "reversed", "residual": True, "scale_map": ScaleMap("tanh", c=2.0)},
    {"scale_map": ScaleMap("softplus", eps=1e-3)},
    {"form": "divide", "order": "random", "context_activation": "tanh"},
]


def transform(features: int = 4, **options) -> MaskedAutoregressiveTransform:  # type: ignore[no-untyped-def]
    return MaskedAutoregressiveTransform(features, **{"hidden_features": (16,), "activation": "tanh", **options})


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("features", [1, 2, 4])
def test_log_det_and_inverse(features: int, options: dict, randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(3, features, dtype=torch.float64)
    check_transform(randomised(transform(features, **options)), x)
    conditional = randomised(transform(features, context_features=2, **options))
    check_transform(conditional, x, torch.randn(3, 2, dtype=torch.float64))
    check_transform(Inverse(conditional), x, torch.randn(2, dtype=torch.float64))


def test_forward_is_the_formula(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform())
    x = torch.randn(5, 4, dtype=torch.float64)
    shift, raw = t.made(x).unbind(-1)
    s = raw / (1 + raw.abs() / math.log(1000))
    z, log_det = t(x)
    torch.testing.assert_close(z, (x - shift) / s.exp(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, -s.sum(-1), rtol=1e-12, atol=1e-12)


def test_the_form_that_divides_is_its_formula(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform(form="divide", context_features=2, context_activation="tanh"))
    x, context = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    made = t.made
    assert made.context is not None and made.context.bias is not None
    shift, raw = made.evaluate(x, made.context(context).tanh()).unbind(-1)
    s = t.scale_map(raw)
    z, log_det = t(x, context)
    torch.testing.assert_close(z, x * s.exp() + shift, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, s.sum(-1), rtol=1e-12, atol=1e-12)
    expected = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1) + log_det
    torch.testing.assert_close(t.normal_log_prob(x, context), expected, rtol=1e-12, atol=1e-12)


def test_the_inverse_is_the_loop_over_features(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform(order="random"))
    z = torch.randn(5, 4, dtype=torch.float64)
    x = torch.zeros_like(z)
    for _ in range(4):
        shift, raw = t.made(x).unbind(-1)
        x = z * t.scale_map(raw).exp() + shift
    torch.testing.assert_close(t.inverse(z)[0], x, rtol=1e-12, atol=1e-12)


def test_features_still_to_come_cannot_spoil_the_inverse() -> None:
    """With an unbounded scale the first passes say of the last features what overflows."""
    t = transform(3, hidden_features=(), scale_map=ScaleMap("identity")).double()
    with torch.no_grad():
        for parameter in t.parameters():
            parameter.zero_()
        t.made.layers[0].bias[5] = 800.0
        t.made.layers[0].weight[5, 0] = -800.0
    z = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    x, log_det = t.inverse(z)
    torch.testing.assert_close(x, z)
    torch.testing.assert_close(log_det, torch.zeros(1, dtype=torch.float64))
    assert torch.autograd.grad(x.sum() + log_det.sum(), z)[0].isfinite().all()


def test_gradients_through_the_inverse(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform(3, context_features=2))
    z, context = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(t.inverse, (z.requires_grad_(), context.requires_grad_()))

    def by_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
        options = {"made.layers.0.weight": weight}
        return torch.func.functional_call(
            Inverse(t), {f"transform.{k}": v for k, v in options.items()}, (z.detach(), context.detach())
        )

    assert torch.autograd.gradcheck(by_weight, (t.made.layers[0].weight.detach().clone().requires_grad_(),))


def test_a_row_that_is_not_finite_leaves_the_others_alone(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform())
    x = torch.randn(4, 4, dtype=torch.float64)
    expected, expected_log_det = t(x)
    x[1, 0], x[3, 2] = torch.nan, torch.inf
    z, log_det = t(x)
    assert torch.equal(z[::2], expected[::2]) and torch.equal(log_det[::2], expected_log_det[::2])
    assert not z[1, 0].isfinite() and not log_det[1].isfinite() and not z[3, 2].isfinite()


@pytest.mark.parametrize("last", [transform(), Permutation.reverse(4), Inverse(transform())])
def test_normal_log_prob_needs_no_noise(last, randomised) -> None:  # type: ignore[no-untyped-def]
    composed = randomised(Composed([transform(), Permutation.reverse(4), last]))
    x = torch.randn(5, 4, dtype=torch.float64)
    given = torch.randn(5, dtype=torch.float64)
    z, log_det = composed(x)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = normal.log_prob(z).sum(-1) + log_det
    torch.testing.assert_close(composed.normal_log_prob(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(composed.normal_log_prob(x, log_det=given), expected + given, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(composed[0].normal_log_prob(x, log_det=given), composed[0].normal_log_prob(x) + given)


def test_config_copies_and_pickles(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform(order="random", scale_map=ScaleMap("clamp", lo=-2.0, hi=1.0)))
    x = torch.randn(5, 4, dtype=torch.float64)
    rebuilt = MaskedAutoregressiveTransform(**t.config).double()
    rebuilt.load_state_dict(t.state_dict())
    for twin in (rebuilt, copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert torch.equal(twin(x)[0], t(x)[0]) and torch.equal(twin.inverse(x)[0], t.inverse(x)[0])


def test_compiles_in_both_directions(randomised) -> None:  # type: ignore[no-untyped-def]
    t = randomised(transform(3))
    x = torch.randn(6, 3, dtype=torch.float64)
    for direction in (t, t.inverse):
        compiled = torch.compile(direction, fullgraph=True, backend="aot_eager")
        for value, expected in zip(compiled(x), direction(x), strict=True):
            torch.testing.assert_close(value, expected)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind: expected one of identity"):
        transform(scale_map={"kind": "exp"})
    with pytest.raises(TypeError, match="outputs"):
        transform(outputs=3)
    with pytest.raises(ValueError, match=r"x: expected shape \(..., 4\)"):
        transform()(torch.zeros(2, 5))
