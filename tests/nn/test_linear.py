from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from fastgen.nn import MaskedLinear

IN = torch.tensor([2, 5, 1, 4, 3])
OUT = torch.tensor([3, 1, 5, 0, 2, 4, 1])


def layer(**options) -> MaskedLinear:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return MaskedLinear(5, 7, IN, OUT, **options)


def mask(strict: bool) -> torch.Tensor:
    return OUT[:, None] > IN if strict else OUT[:, None] >= IN


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5,), (0, 5), (3, 5), (2, 3, 5)])
def test_equals_a_linear_layer_with_masked_weights(strict: bool, bias: bool, shape: tuple[int, ...]) -> None:
    m = layer(strict=strict, bias=bias, activation="tanh", dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    expected = F.linear(x, m.weight * mask(strict), m.bias).tanh()
    torch.testing.assert_close(m(x), expected, rtol=1e-13, atol=1e-13)


def test_weights_outside_the_mask_have_no_effect_and_no_gradient() -> None:
    m = layer(dtype=torch.float64)
    x = torch.randn(4, 5, dtype=torch.float64)
    before = m(x)
    with torch.no_grad():
        m.weight[~mask(False)] = torch.nan
    assert torch.equal(m(x), before)
    m(x).sum().backward()
    assert (m.weight.grad[~mask(False)] == 0).all() and (m.weight.grad[mask(False)] != 0).all()


def test_initial_outputs_have_one_size_whatever_their_degree() -> None:
    torch.manual_seed(0)
    degrees = torch.arange(1, 513)
    m = MaskedLinear(512, 512, degrees, degrees, bias=False)
    size = m(torch.randn(2000, 512)).std(0)
    # Weights from U(-1/sqrt(n), 1/sqrt(n)) give n terms of variance 1/(3n); the first outputs see a few weights only.
    assert (size[:64].mean() / size[-64:].mean() - 1).abs() < 0.2
    assert (size[-64:].mean() - 3**-0.5).abs() < 0.03


def test_copies_and_pickles_make_their_own_plan() -> None:
    m = layer(dtype=torch.float64)
    x = torch.randn(3, 5, dtype=torch.float64)
    assert "_plan" not in m.__getstate__()
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert torch.equal(twin(x), m(x))
        assert twin._plan.prefix is not m._plan.prefix


def test_a_moved_layer_has_its_plan_where_its_weights_are() -> None:
    m = layer().to("meta")
    assert m._plan.prefix.device.type == "meta"
    loaded = layer().to("meta")
    loaded.load_state_dict(layer().state_dict(), assign=True)
    x = torch.randn(3, 5)
    assert torch.equal(loaded(x), layer()(x))


def test_degrees_are_configuration() -> None:
    degrees = IN.clone()
    m = MaskedLinear(5, 7, degrees, OUT)
    degrees.zero_()
    assert torch.equal(m.in_degrees, IN)
    assert list(m.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 7, IN, OUT), ValueError, "in_features: expected at least 1, found 0"),
        ((5, 0, IN, OUT), ValueError, "out_features: expected at least 1, found 0"),
        ((4, 7, IN, OUT), ValueError, r"in_degrees: expected shape \(4,\), found \(5,\)"),
        ((5, 6, IN, OUT), ValueError, r"out_degrees: expected shape \(6,\), found \(7,\)"),
        ((5, 7, IN.float(), OUT), TypeError, "in_degrees: expected an int64 tensor"),
        ((5, 7, IN - 3, OUT), ValueError, r"in_degrees: expected degrees in \[0"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskedLinear(*arguments)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match=r"activation: expected one of identity, relu.*found 'swish'"):
        layer(activation="swish")


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_compiles_into_one_graph(activation: str) -> None:
    m = layer(activation=activation)
    x = torch.randn(6, 5, requires_grad=True)
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), m(x))
    (grad,) = torch.autograd.grad(compiled(x).sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(m(x).sum(), x)[0])
