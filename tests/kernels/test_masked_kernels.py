"""masked_linear and masked_mlp on Triton kernels."""

from __future__ import annotations

import pytest
import torch
from compare import RUNS_KERNELS, assert_matches, padded
from torch import Tensor

from fastgen import backends, ops, reference
from fastgen.kernels import masked_linear as kernel
from fastgen.kernels._activations import FUSED
from fastgen.reference import ACTIVATIONS, MaskedLayer, MaskedNetwork

pytestmark = RUNS_KERNELS


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that even a test's staircase has tiles outside, on and inside it, and a batch several slices."""
    monkeypatch.setattr(kernel, "TILES", dict.fromkeys(kernel.TILES, (kernel.Tile(16, 16, 16, 4, 2),)))
    monkeypatch.setattr(kernel, "_SLICE_ROWS", 16)


def _degrees(kind: str, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Degrees of inputs and outputs: in order as they stand or not, all equal, or with outputs that see nothing."""
    if kind == "one":
        return torch.ones(inputs, dtype=torch.int64), torch.ones(outputs, dtype=torch.int64)
    spread_in, spread_out = torch.arange(inputs) * 9 // inputs + 1, torch.arange(outputs) * 9 // outputs + 1
    if kind == "sorted":
        return spread_in, spread_out
    if kind == "blind":
        return spread_in + 5, spread_out
    torch.manual_seed(2)
    shuffled_in, shuffled_out = spread_in[torch.randperm(inputs)], spread_out[torch.randperm(outputs)]
    return shuffled_in, shuffled_out if kind == "shuffled" else spread_out


def _layer(
    device: str, batch: int, degrees: tuple[Tensor, Tensor], strict: bool, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias; weights outside the mask are NaN."""
    torch.manual_seed(0)
    into, out = degrees
    weight = torch.randn(len(out), len(into)) / len(into) ** 0.5
    weight[~reference.degree_mask(into, out, strict)] = torch.nan
    x, bias = torch.randn(batch, len(into)), torch.randn(len(out))
    return x.to(device, dtype), weight.to(device, dtype), bias.to(device, dtype)


def _assert_layer_matches(
    inputs: tuple[Tensor, ...], degrees: tuple[Tensor, Tensor], strict: bool, activation: str | None
) -> None:
    def call(module):  # type: ignore[no-untyped-def]
        return lambda x, w, b=None: module.masked_linear(x, w, b, *degrees, strict=strict, activation=activation)

    assert_matches(call(ops), call(reference), inputs)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["sorted", "shuffled", "inputs shuffled", "one", "blind"])
def test_staircases(device: str, small_tiles: None, kind: str, strict: bool) -> None:
    degrees = _degrees(kind, 37, 50)
    _assert_layer_matches(_layer(device, 19, degrees, strict), degrees, strict, "tanh")


@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(1, 1, 1), (3, 1, 40), (40, 50, 1), (70, 200, 150), (140, 30, 130)])
def test_shapes(device: str, batch: int, inputs: int, outputs: int) -> None:
    degrees = _degrees("sorted", inputs, outputs)
    _assert_layer_matches(_layer(device, batch, degrees, False), degrees, False, None)


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [*((name, torch.float32) for name in FUSED), *(("tanh", t) for t in (torch.float64, torch.bfloat16, torch.float16))],
)
def test_activations(device: str, activation: str, dtype: torch.dtype) -> None:
    degrees = _degrees("sorted", 20, 24)
    _assert_layer_matches(_layer(device, 30, degrees, False, dtype), degrees, False, activation)


def test_activations_that_are_not_fused(device: str) -> None:
    degrees = _degrees("shuffled", 20, 24)
    for activation in set(ACTIVATIONS) - set(FUSED):
        _assert_layer_matches(_layer(device, 30, degrees, False), degrees, False, activation)


def test_relu_at_zero(device: str) -> None:
    """Where the sum is exactly 0 the gradient is 0."""
    x = torch.zeros(4, 3, device=device, requires_grad=True)
    weight = torch.ones(2, 3, device=device, requires_grad=True)
    with backends.use("triton"):
        y = ops.masked_linear(x, weight, None, torch.arange(3), torch.tensor([2, 2]), activation="relu")
    y.sum().backward()
    assert not x.grad.any() and not weight.grad.any()


def test_strides_and_no_bias(device: str, small_tiles: None) -> None:
    degrees = _degrees("sorted", 21, 19)
    x, weight, _ = _layer(device, 18, degrees, True)
    for view in (padded(x), x.T.contiguous().T, x[:1].expand(18, 21), x[:, :1].expand(18, 21), padded(x)[::2]):
        _assert_layer_matches((view, weight), degrees, True, "elu")


def test_no_rows(device: str) -> None:
    degrees = _degrees("sorted", 5, 4)
    _assert_layer_matches(_layer(device, 0, degrees, False), degrees, False, "relu")


def test_a_nan_stays_in_its_row(device: str, small_tiles: None) -> None:
    degrees = _degrees("sorted", 40, 50)
    x, weight, bias = _layer(device, 20, degrees, False)
    broken = x.clone()
    broken[7, 3] = torch.nan
    with backends.use("triton"):
        y, clean = (ops.masked_linear(t, weight, bias, *degrees, activation="relu") for t in (broken, x))
    sees = reference.degree_mask(*degrees)[:, 3]
    rest = [i for i in range(20) if i != 7]
    assert y[7, sees].isnan().all()
    assert torch.equal(y[rest], clean[rest])


def test_slices_of_a_batch_are_the_whole(device: str, small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients of weight and bias of many rows, summed slice by slice."""
    monkeypatch.setattr(kernel, "device_of", lambda t: kernel.Device(processors=64, shared_memory=1 << 30))
    degrees = _degrees("shuffled", 20, 37)
    _assert_layer_matches(_layer(device, 70, degrees, False), degrees, False, "sigmoid")


def _network(activation: str, residual: bool, direct: bool, features: int = 5, hidden: int = 12) -> MaskedNetwork:
    torch.manual_seed(3)
    order = torch.randperm(features) + 1
    into, out = tuple(order.tolist()), tuple(order.repeat_interleave(2).tolist())
    units = tuple((torch.arange(hidden) * features // hidden).tolist())
    layers = [MaskedLayer(into, units, activation=activation)]
    for source in (None, 0 if residual else None, 0 if residual else None):
        layers.append(MaskedLayer(units, units, activation=activation, residual=source))
    layers.append(MaskedLayer(units, out, strict=True))
    return MaskedNetwork(tuple(layers), direct=direct, outputs=2)


def _params(network: MaskedNetwork, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Weights outside their masks are NaN."""
    torch.manual_seed(4)
    shapes = [(layer.in_degrees, layer.out_degrees, layer.strict) for layer in network.layers]
    params = []
    for into, out, strict in shapes + [(network.layers[0].in_degrees, network.layers[-1].out_degrees, True)] * network.direct:
        weight = torch.randn(len(out), len(into)) / 3
        weight[~reference.degree_mask(torch.tensor(into), torch.tensor(out), strict)] = torch.nan
        params += [weight.to(device, dtype), torch.randn(len(out)).to(device, dtype)]
    return params[: network.parameter_count]


def _assert_network_matches(
    network: MaskedNetwork, x: Tensor, context_terms: Tensor | None, params: list[Tensor | None]
) -> None:
    def call(module):  # type: ignore[no-untyped-def]
        if context_terms is None:
            return lambda x, *params: module.masked_mlp(x, network, params)
        return lambda x, c, *params: module.masked_mlp(x, network, params, context_terms=c)

    assert_matches(call(ops), call(reference), [x, *([] if context_terms is None else [context_terms]), *params])


@pytest.mark.parametrize(
    ("activation", "residual"), [*((name, True) for name in ACTIVATIONS), ("relu", False), ("gelu", False)]
)
def test_masked_mlp(device: str, activation: str, residual: bool) -> None:
    network = _network(activation, residual, direct=residual)
    x, context_terms = torch.randn(9, 5, device=device), torch.randn(9, 12, device=device)
    _assert_network_matches(network, x, context_terms if residual else None, _params(network, device))


# The interpreter cuts bfloat16 off where a GPU rounds it: over a chain of layers that adds up.
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, *([] if backends.interpreting() else [torch.bfloat16])])
def test_masked_mlp_in_other_dtypes(device: str, dtype: torch.dtype) -> None:
    network = _network("relu", True, True)
    x, context_terms = torch.randn(9, 5, device=device, dtype=dtype), torch.randn(1, 12, device=device, dtype=dtype)
    _assert_network_matches(network, x, context_terms, _params(network, device, dtype))


@pytest.mark.parametrize("batch", [0, 1])
def test_masked_mlp_of_one_layer(device: str, batch: int) -> None:
    network = MaskedNetwork((MaskedLayer((1,), (1, 1), strict=True),), outputs=2)
    x, context_terms = torch.randn(batch, 1, device=device), torch.randn(batch, 2, device=device)
    _assert_network_matches(network, x, context_terms, _params(network, device))


def test_gradients_of_some(device: str) -> None:
    """Each parameter alone: what lies below it is not walked."""
    network = _network("tanh", True, True)
    params = _params(network, device)
    x = torch.randn(6, 5, device=device)
    for wanted in (0, 5, 8, 10):
        leaves = [p.clone().requires_grad_(i == wanted) for i, p in enumerate(params)]
        with backends.use("triton"):
            (found,) = torch.autograd.grad(ops.masked_mlp(x, network, leaves).square().sum(), leaves[wanted])
        (expected,) = torch.autograd.grad(reference.masked_mlp(x, network, leaves).square().sum(), leaves[wanted])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_without_gradients_nothing_is_saved(device: str) -> None:
    network = _network("silu", False, False)
    params, x = _params(network, device), torch.randn(6, 5, device=device)
    with backends.use("triton"), torch.no_grad():
        y = ops.masked_mlp(x, network, params)
    torch.testing.assert_close(y, reference.masked_mlp(x, network, params))
