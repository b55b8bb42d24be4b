"""Masked autoregressive blocks in a row are one call, unless something waits for one of them."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastgen.flows import MAF, Composed, Inverse, MaskedAutoregressiveTransform, Permutation, Transform, transform


def block(**options) -> MaskedAutoregressiveTransform:  # type: ignore[no-untyped-def]
    return MaskedAutoregressiveTransform(4, hidden_features=(9,), activation="tanh", context_features=2, **options)


@pytest.fixture
def mixed(randomised) -> Composed:  # type: ignore[no-untyped-def]
    """Runs of two blocks and of one, both ways round, and a last run of two."""
    reverse = Permutation.reverse(4)
    steps = [block(), block(order="reversed"), reverse, Inverse(block()), Inverse(block(form="divide")), reverse]
    return randomised(Composed([*steps, block(), block()]))


@pytest.fixture
def calls(monkeypatch) -> list[int]:  # type: ignore[no-untyped-def]
    """How many blocks each call of the operations has had."""
    counted: list[int] = []
    for name in ("masked_autoregressive_stack", "masked_autoregressive_stack_log_prob"):

        def count(run, x, blocks, **options):  # type: ignore[no-untyped-def]
            counted.append(len(blocks))
            return run(x, blocks, **options)

        monkeypatch.setattr(transform, name, partial(count, getattr(transform, name)))
    return counted


def given(rows: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 4, dtype=torch.float64), torch.randn(rows, 2, dtype=torch.float64)


def one_by_one(steps: list[Transform], x: Tensor, context: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    log_det = None
    for step in reversed(steps) if inverse else steps:
        x, log_det = (step.inverse if inverse else step)(x, context, log_det=log_det)
    assert log_det is not None
    return x, log_det


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_it_is_what_the_steps_give(mixed: Composed, calls: list[int], inverse: bool) -> None:
    x, context = given()
    inputs = (x.requires_grad_(), context.requires_grad_(), *mixed.parameters())
    found = (mixed.inverse if inverse else mixed)(x, context)
    assert calls == ([2] if inverse else [2, 2])
    expected = one_by_one(list(mixed), x, context, inverse)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grads, wanted = (torch.autograd.grad(z.square().sum() + log_det.sum(), inputs) for z, log_det in (found, expected))
    torch.testing.assert_close(grads, wanted, rtol=1e-9, atol=1e-9)


def test_a_density_ends_with_the_last_run(mixed: Composed, calls: list[int]) -> None:
    x, context = given()
    found = mixed.normal_log_prob(x, context)
    assert calls == [2, 2]
    z, log_det = one_by_one(list(mixed), x, context, False)
    normal = torch.distributions.Normal(torch.zeros_like(z), 1.0)
    torch.testing.assert_close(found, normal.log_prob(z).sum(-1) + log_det, rtol=1e-12, atol=1e-12)


def test_a_flow_of_blocks_is_one_call(calls: list[int]) -> None:
    MAF(3, transforms=4, hidden_features=(8,)).log_prob(torch.randn(6, 3)).sum().backward()
    assert calls == [4]


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_are_called(mixed: Composed, calls: list[int], kind: str) -> None:
    seen = []
    step = next(iter(mixed))
    getattr(step, f"register_{kind}_hook")(lambda *_: seen.append(kind))
    x, context = given()
    mixed.normal_log_prob(x.requires_grad_(), context).sum().backward()
    assert seen == [kind]
    assert calls == [1, 2]


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parameters_of_another_place_are_read(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(MAF(3, transforms=2, hidden_features=(8,)))
    x = torch.randn(5, 3, dtype=torch.float64)
    doubled = {name: 2 * p if name.endswith("layers.0.weight") else p for name, p in flow.named_parameters()}
    expected = torch.func.functional_call(flow, doubled, (x,))
    assert not torch.allclose(expected, flow.log_prob(x))
    for step in flow.transform:
        parametrize.register_parametrization(step.made.layers[0], "weight", Doubled())
    torch.testing.assert_close(flow.log_prob(x), expected)


def test_a_subclass_is_called_itself(randomised) -> None:  # type: ignore[no-untyped-def]
    class Shifted(MaskedAutoregressiveTransform):
        def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().forward(x + 1, context, log_det=log_det)

    own = randomised(Shifted(3, hidden_features=(5,)))
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(Composed([own, own])(x)[0], own(own(x)[0])[0])


def test_pairs_of_runs() -> None:
    """Any arrangement of blocks and other steps."""
    steps = [block(), Permutation.reverse(4)]
    for kinds in itertools.product(steps, repeat=3):
        composed = Composed(kinds).double()
        x, context = given(3)
        torch.testing.assert_close(composed(x, context), one_by_one(list(kinds), x, context, False))
