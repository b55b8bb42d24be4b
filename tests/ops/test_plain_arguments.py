"""Which arguments go to the C++ kernels without a closer look: all others are checked, broadcast or given to the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastgen import backends, ops

pytestmark = pytest.mark.usefixtures("cpu_backend")

X = torch.randn(3, 4)


class Subclass(Tensor):
    pass


def negated() -> Tensor:
    return torch.imag(torch.randn(3, 4, dtype=torch.complex64).conj())


OTHERS = {
    "another dtype": X.double(),
    "no dtype of theirs": X.bfloat16(),
    "integers": X.long(),
    "another device": X.to("meta"),
    "a subclass": X.as_subclass(Subclass),
    "negated": negated(),
    "sparse": X.to_sparse(),
    "a number": 1.0,
    "none": None,
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_not_plain(other: str) -> None:
    with backends.use("auto"):
        assert backends.plain(X, X)
        for pair in ((X, OTHERS[other]), (OTHERS[other], X)):
            assert not backends.plain(*pair)
            assert not backends.alike(*pair)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 1), (3, 3, 4)])
def test_what_is_not_alike(shape: tuple[int, ...]) -> None:
    with backends.use("auto"):
        assert backends.plain(X, torch.zeros(shape))
        assert not backends.alike(X, torch.zeros(shape))
        assert backends.alike(X, X.double().t().contiguous().t().float(), torch.nn.Parameter(X))
        assert not backends.alike(X[:, :0], X[:, :0])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_none_where_a_backend_is_forced(backend: str) -> None:
    with backends.use(backend):
        assert not backends.plain(X, X)
        assert not backends.alike(X, X)


def test_a_negated_view_is_refused_as_before() -> None:
    with backends.use("auto"), pytest.raises(ValueError, match="logits: expected a tensor as it is stored"):
        ops.bernoulli_log_prob(X, negated())


def test_the_plan_of_another_network_is_refused() -> None:
    def network(hidden: int) -> ops.MaskedNetwork:
        return ops.MaskedNetwork(
            (ops.MaskedLayer((1, 2), (1,) * hidden, activation="relu"), ops.MaskedLayer((1,) * hidden, (1, 2), True))
        )

    net = network(3)
    params = [torch.zeros(shape) for shape in net.parameter_shapes]
    x = torch.zeros(5, 2)
    expected = ops.masked_mlp(x, net, params)
    assert torch.equal(ops.masked_mlp(x, net, params, plan=ops.make_network_plan(net)), expected)
    with backends.use("auto"), pytest.raises(ValueError, match="plan: expected that of a network with weights"):
        ops.masked_mlp(x, net, params, plan=ops.make_network_plan(network(4)))
