from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgen.nn import MLP, ConvNet, ResidualMLP

DOUBLE = torch.float64
PLACED = {"dtype": DOUBLE}


def networks(context_features: int = 0, zero_init: bool = False) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Networks from 3 features (channels) to 4, and the shape of an input."""
    torch.manual_seed(0)
    options = {"context_features": context_features, "zero_init": zero_init, **PLACED}
    return [
        (MLP(3, 4, **options), (3,)),
        (MLP(3, 4, hidden_features=(5, 7), activation="tanh", **options), (3,)),
        (ResidualMLP(3, 4, hidden_features=(6, 6), activation="silu", **options), (3,)),
        (ConvNet(3, 4, hidden_channels=5, blocks=2, activation="elu", **options), (3, 4, 5)),
    ]


IDS = ["linear", "MLP", "ResidualMLP", "ConvNet"]
each = pytest.mark.parametrize("kind", range(4), ids=IDS)


def answer_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (4, *shape[1:])


def test_mlp_with_a_context_is_one_linear_layer_of_both() -> None:
    network = MLP(3, 4, hidden_features=(5,), context_features=2, **PLACED)
    x, context = torch.randn(6, 3, **PLACED), torch.randn(6, 2, **PLACED)
    first, last = network.layers
    both = F.linear(torch.cat([x, context], 1), torch.cat([first.weight, network.context.weight], 1), first.bias)
    torch.testing.assert_close(network(x, context), last(both.relu()))


def test_residual_blocks_come_before_their_activations() -> None:
    network = ResidualMLP(3, 4, hidden_features=(6, 6), activation="tanh", **PLACED)
    x = torch.randn(7, 3, **PLACED)
    y = network.first(x)
    for inner, outer in network.blocks:
        y = y + outer(inner(y.tanh()).tanh())
    torch.testing.assert_close(network(x), network.last(y))


def test_convnet_is_its_convolutions() -> None:
    network = ConvNet(2, 3, hidden_channels=4, blocks=1, context_features=2, **PLACED)
    x, context = torch.randn(5, 2, 3, 6, **PLACED), torch.randn(5, 2, **PLACED)
    y = F.conv2d(x, network.first.weight, network.first.bias, padding=1) + network.context(context)[..., None, None]
    inner, outer = network.blocks[0]
    y = y + F.conv2d(F.conv2d(y.relu(), inner.weight, inner.bias, padding=1).relu(), outer.weight, outer.bias)
    truth = F.conv2d(y, network.last.weight, network.last.bias, padding=1)
    torch.testing.assert_close(network(x, context), truth)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), context), truth)


@each
@pytest.mark.parametrize("batch", [(), (0,), (1,), (5,), (2, 3), (2, 0, 3)])
@pytest.mark.parametrize("context_features", [0, 2])
def test_any_batch(kind: int, batch: tuple[int, ...], context_features: int) -> None:
    network, shape = networks(context_features)[kind]
    x = torch.randn(*batch, *shape, requires_grad=True, **PLACED)
    context = torch.randn(*batch, context_features, **PLACED) if context_features else None
    y = network(x) if context is None else network(x, context)
    assert y.shape == (*batch, *answer_shape(shape))
    y.sum().backward()
    assert x.grad.shape == x.shape
    if 0 not in batch:
        rows = x.detach().reshape(-1, *shape)
        contexts = [()] * len(rows) if context is None else [(c,) for c in context.reshape(-1, context_features)]
        each = torch.stack([network(row, *c) for row, c in zip(rows, contexts, strict=True)])
        torch.testing.assert_close(y.detach().reshape(each.shape), each.detach())


@each
def test_one_context_serves_many_rows_with_one_product(kind: int) -> None:
    network, shape = networks(2)[kind]
    rows = []
    network.context.register_forward_hook(lambda module, inputs, output: rows.append(output[..., 0].numel()))
    x, context = torch.randn(4, 6, *shape, **PLACED), torch.randn(4, 1, 2, **PLACED)
    torch.testing.assert_close(network(x, context), network(x, context.expand(4, 6, 2)))
    torch.testing.assert_close(network(x, context[0, 0]), network(x, context[0, 0].expand(4, 6, 2)))
    assert rows == [4, 24, 1, 24]


@each
@pytest.mark.parametrize("context_features", [0, 2])
def test_zero_init_answers_zero_and_learns(kind: int, context_features: int) -> None:
    network, shape = networks(context_features, zero_init=True)[kind]
    x = torch.randn(5, *shape, **PLACED)
    y = network(x, torch.randn(5, 2, **PLACED)) if context_features else network(x)
    assert (y == 0).all()
    (y - 1).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@each
@pytest.mark.parametrize("context_features", [0, 2])
def test_gradients(kind: int, context_features: int) -> None:
    network, shape = networks(context_features)[kind]
    x = torch.randn(2, *shape, requires_grad=True, **PLACED)
    inputs = (x, torch.randn(2, 2, requires_grad=True, **PLACED)) if context_features else (x,)
    names = list(dict(network.named_parameters()))

    def run(*tensors: Tensor) -> Tensor:
        parameters = dict(zip(names, tensors[len(inputs) :], strict=True))
        return torch.func.functional_call(network, parameters, tensors[: len(inputs)])

    assert torch.autograd.gradcheck(run, (*inputs, *network.parameters()))


@each
def test_compiles_into_one_graph_and_runs_under_autocast(kind: int) -> None:
    network, shape = networks(2)[kind]
    network.float()
    x, context = torch.randn(5, *shape), torch.randn(2)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context), network(x, context))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x, context).dtype == torch.bfloat16
    assert network.bfloat16()(x.bfloat16(), context.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: MLP(0, 1), ValueError, "in_features: expected at least 1, found 0"),
        (lambda: MLP(1, 0), ValueError, "out_features: expected at least 1, found 0"),
        (lambda: MLP(1, 1, context_features=-1), ValueError, "context_features: expected at least 0, found -1"),
        (lambda: MLP(1, 1, hidden_features=(0,)), ValueError, "hidden_features: expected at least 1, found 0"),
        (lambda: MLP(1, 1, activation="cube"), ValueError, "activation: expected one of identity"),
        (lambda: ResidualMLP(1, 1, hidden_features=()), ValueError, "hidden_features: expected at least one residual block"),
        (lambda: ResidualMLP(1, 1, hidden_features=(2, 3)), ValueError, "hidden_features: expected equal widths with residual"),
        (lambda: ResidualMLP(1, 1, hidden_features=3), TypeError, "hidden_features: expected a sequence of widths, found 3"),
        (lambda: ConvNet(0, 1), ValueError, "channels_in: expected at least 1, found 0"),
        (lambda: ConvNet(1, 1, blocks=0), ValueError, "blocks: expected at least 1, found 0"),
        (lambda: MLP(1, 1)(torch.zeros(2, 1), torch.zeros(2, 1)), ValueError, r"context: expected None, found \(2, 1\)"),
        (
            lambda: MLP(1, 1, context_features=2)(torch.zeros(2, 1)),
            ValueError,
            r"context: expected shape \(..., 2\), found None",
        ),
        (
            lambda: ConvNet(1, 1, context_features=2)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 2).double()),
            TypeError,
            "context: expected the weight's dtype torch.float32, found torch.float64",
        ),
    ],
)
def test_bad_arguments_are_named(build, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        build()
