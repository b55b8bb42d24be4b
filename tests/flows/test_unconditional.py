"""Transforms that are not shown their flow's context."""

from __future__ import annotations

import torch

from fastgen.flows import Composed, Inverse, MaskedAutoregressiveTransform, Unconditional

DOUBLE = torch.float64


def test_the_context_is_not_seen(randomised, check_transform) -> None:  # type: ignore[no-untyped-def]
    own = randomised(MaskedAutoregressiveTransform(3, hidden_features=(8,)))
    x, context = torch.randn(4, 3, dtype=DOUBLE), torch.randn(4, 2, dtype=DOUBLE)
    check_transform(Unconditional(own), x, context)
    check_transform(Inverse(Unconditional(own)), x, context)
    assert torch.equal(Unconditional(own)(x, context)[0], own(x)[0])
    assert torch.equal(Unconditional(own).normal_log_prob(x, context), own.normal_log_prob(x))


def test_a_reversible_stack_rebuilds_its_input(randomised) -> None:  # type: ignore[no-untyped-def]
    own = randomised(MaskedAutoregressiveTransform(3, hidden_features=(8,)))
    conditional = randomised(MaskedAutoregressiveTransform(3, hidden_features=(8,), context_features=2))
    x, context = torch.randn(4, 3, dtype=DOUBLE), torch.randn(4, 2, dtype=DOUBLE)
    found = []
    for reversible in (False, True):
        stack = Composed([Unconditional(own), conditional], reversible=reversible)
        found.append(torch.autograd.grad(stack(x, context)[0].sum(), list(stack.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
