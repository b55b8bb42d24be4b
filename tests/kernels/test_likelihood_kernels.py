"""The decoders' likelihoods and gaussian_mixture_log_prob on Triton kernels."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from compare import RUNS_KERNELS, assert_matches, padded
from torch import Tensor

from fastgen import backends, ops, reference

pytestmark = RUNS_KERNELS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _draw(device: str, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


# 1100 features are more than one block of columns.
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (300, 2), (120, 13), (3, 1100)])
def test_bernoulli(device: str, shape: tuple[int, int]) -> None:
    x = _draw(device, *shape).sigmoid()
    assert_matches(ops.bernoulli_log_prob, reference.bernoulli_log_prob, (x, 3 * _draw(device, *shape, seed=1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(device: str, dtype: torch.dtype) -> None:
    x, a, b = (_draw(device, 120, 13, seed=i) for i in range(3))
    bernoulli = (x.sigmoid().to(dtype), a.to(dtype))
    assert_matches(ops.bernoulli_log_prob, reference.bernoulli_log_prob, bernoulli)
    logistic = ((255 * x.sigmoid()).round().div(255).to(dtype), a.sigmoid().to(dtype), (b - 2).to(dtype))
    assert_matches(ops.discretized_logistic_log_prob, reference.discretized_logistic_log_prob, logistic)
    logits = _draw(device, 40, 3, 6).to(dtype)
    categories = torch.arange(120, device=device).view(40, 3) % 6
    assert_matches(*(partial(m.categorical_log_prob, categories) for m in (ops, reference)), (logits,))
    mixture = [t.to(dtype) for t in (x[:40, :3], a[0, :5], b[:5, :3], 0.3 * a[5:10, :3])]
    assert_matches(ops.gaussian_mixture_log_prob, reference.gaussian_mixture_log_prob, mixture)


def test_float64(device: str) -> None:
    x, a, b = (_draw(device, 40, 3, seed=i).double() for i in range(3))
    levels = (255 * x.sigmoid()).round() / 255
    cases = [
        ("bernoulli_log_prob", [x.sigmoid(), a]),
        ("discretized_logistic_log_prob", [levels, a.sigmoid(), b - 2]),
        ("gaussian_mixture_log_prob", [x, a[:5, 0], a[:5], 0.3 * b[:5]]),
    ]
    for name, tensors in cases:
        pair = []
        for module, backend in ((ops, "triton"), (reference, "auto")):
            leaves = [t.clone().requires_grad_() for t in tensors]
            with backends.use(backend):
                log_prob = getattr(module, name)(*leaves)
                pair.append([log_prob, *torch.autograd.grad(log_prob, leaves, torch.linspace(-1, 2, 40).to(log_prob))])
        torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


def test_bernoulli_of_certain_logits(device: str) -> None:
    logits = torch.tensor([[math.inf], [math.inf], [-math.inf], [0.0]], device=device, requires_grad=True)
    x = torch.tensor([[1.0], [0.0], [0.0], [1.0]], device=device)
    with backends.use("triton"):
        log_prob = ops.bernoulli_log_prob(x, logits)
    assert log_prob.tolist()[:3] == [0.0, -math.inf, 0.0]
    assert torch.autograd.grad(log_prob.sum(), logits)[0].flatten().tolist() == [0.0, -1.0, 0.0, 0.5]


@pytest.mark.parametrize("shape", [(0, 3), (5, 1), (3, 1100)])
@pytest.mark.parametrize("levels", [2, 256])
def test_discretized_logistic(device: str, shape: tuple[int, int], levels: int) -> None:
    x = ((levels - 1) * _draw(device, *shape).sigmoid()).round() / (levels - 1)
    inputs = (x, _draw(device, *shape, seed=1).sigmoid(), _draw(device, *shape, seed=2) - 2)

    def call(module):  # type: ignore[no-untyped-def]
        return lambda *t: module.discretized_logistic_log_prob(*t, levels=levels)

    assert_matches(call(ops), call(reference), inputs)


@pytest.mark.parametrize("categories", [1, 5, 1500])
def test_categorical(device: str, categories: int) -> None:
    logits = 100 + 3 * _draw(device, 7, 3, categories)
    x = torch.arange(21, device=device).view(7, 3) % categories
    found, expected = [], []
    for module, results in ((ops, found), (reference, expected)):
        leaf = logits.double().requires_grad_()
        with backends.use("triton" if module is ops else "auto"):
            log_prob = module.categorical_log_prob(x, leaf)
        results += [log_prob, *torch.autograd.grad(log_prob, leaf, torch.linspace(-1, 2, 7).to(log_prob))]
    torch.testing.assert_close(found, expected)


def test_what_is_no_category_is_nan(device: str) -> None:
    x = torch.tensor([[0], [3], [-1], [2]], device=device)
    with backends.use("triton"):
        log_prob = ops.categorical_log_prob(x, torch.zeros(4, 1, 3, device=device))
    assert log_prob.isnan().tolist() == [False, True, True, False]


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (70, 40, 3), (300, 5, 2)])
@pytest.mark.parametrize("own", [False, True])
def test_mixture(device: str, shape: tuple[int, int, int], own: bool) -> None:
    rows, components, features = shape
    logits = _draw(device, rows, components) if own else _draw(device, components)
    means, log_scales = (_draw(device, components, features, seed=i) for i in (1, 2))
    x = _draw(device, rows, features, seed=3)
    assert_matches(ops.gaussian_mixture_log_prob, reference.gaussian_mixture_log_prob, (x, logits, means, 0.3 * log_scales))


def test_components_of_weight_zero_do_not_count(device: str) -> None:
    x, means = _draw(device, 9, 3), _draw(device, 40, 3, seed=1)
    some = torch.arange(40, device=device) >= 35
    logits = torch.where(some, 0.0, -math.inf)
    with backends.use("triton"):
        found = ops.gaussian_mixture_log_prob(x, logits, means, torch.zeros_like(means))
        expected = ops.gaussian_mixture_log_prob(x, logits[some], means[some], torch.zeros_like(means[some]))
    torch.testing.assert_close(found, expected)


def test_strides(device: str) -> None:
    """Padded, transposed and expanded inputs."""
    x, a = _draw(device, 20, 7), _draw(device, 20, 7, seed=1)
    with backends.use("triton"):
        bernoulli = ops.bernoulli_log_prob(padded(x.sigmoid()), a.T.contiguous().T)
        logistic = ops.discretized_logistic_log_prob(x.round().clamp(0, 1), a[:1].expand(20, 7), a[:, :1])
        mixture = ops.gaussian_mixture_log_prob(padded(x), a[:5, 0], padded(a[:5]), a[:5, 1:2])
    torch.testing.assert_close(bernoulli, reference.bernoulli_log_prob(x.sigmoid(), a))
    torch.testing.assert_close(
        logistic, reference.discretized_logistic_log_prob(x.round().clamp(0, 1), a[:1].expand(20, 7), a[:, :1])
    )
    torch.testing.assert_close(mixture, reference.gaussian_mixture_log_prob(x, a[:5, 0], a[:5], a[:5, 1:2]))
