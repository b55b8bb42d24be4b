from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from fastgen.flows import NICE, Scaling, StandardLogistic, StandardNormal

DOUBLE = torch.float64
VARIANTS = {
    "halves": {},
    "paper": {"mask": "alternating", "base": {"base": "StandardLogistic"}},
    "residual": {"conditioner": "residual", "mask": "random", "seed": 2},
    "context": {"context_features": 2},
    "reversible": {"reversible": True},
}
each = pytest.mark.parametrize("variant", VARIANTS)


def nice(features: int = 5, **options) -> NICE:  # type: ignore[no-untyped-def]
    return NICE(features, **{"transforms": 4, "hidden_features": (8, 8), **options})


def context_of(flow: NICE, *batch: int) -> Tensor | None:
    features = flow.config["context_features"]
    return torch.randn(*batch, features, dtype=DOUBLE) if features else None


class PlainNICE(nn.Module):
    """NICE with a logistic prior, every second feature in turn, in plain PyTorch."""

    def __init__(self, features: int, transforms: int, hidden: int) -> None:
        super().__init__()
        sizes = [((features + 1) // 2, features // 2), (features // 2, (features + 1) // 2)]
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, b))
            for a, b in (sizes[i % 2] for i in range(transforms))
        )
        self.log_scale = nn.Parameter(torch.zeros(features))

    def log_prob(self, x: Tensor) -> Tensor:
        even, odd = x[:, 0::2], x[:, 1::2]
        for i, network in enumerate(self.networks):
            even, odd = (even, odd + network(even)) if i % 2 == 0 else (even + network(odd), odd)
        z = torch.empty_like(x)
        z[:, 0::2], z[:, 1::2] = even, odd
        z = z * self.log_scale.exp()
        return (-z - 2 * torch.log1p((-z).exp())).sum(1) + self.log_scale.sum()


def test_equals_plain_pytorch(randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(nice(**VARIANTS["paper"]))
    twin = PlainNICE(5, 4, 8).double()
    with torch.no_grad():
        for ours, theirs in zip(flow.parameters(), [*list(twin.networks.parameters()), twin.log_scale], strict=True):
            theirs.copy_(ours)
    x = torch.randn(6, 5, dtype=DOUBLE, requires_grad=True)
    found, truth = flow.log_prob(x), twin.log_prob(x)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)
    grads = torch.autograd.grad(found.sum(), [x, *flow.parameters()])
    expected = torch.autograd.grad(truth.sum(), [x, *twin.networks.parameters(), twin.log_scale])
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)


@each
def test_log_det_is_that_of_the_jacobian(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(nice(**VARIANTS[variant]))
    x, context = torch.randn(3, 5, dtype=DOUBLE), context_of(flow, 3)
    log_prob = flow.log_prob(x, context)
    scaling = next(t for t in flow.transform if isinstance(t, Scaling))
    for i, row in enumerate(x):
        c = None if context is None else context[i]
        slogdet = torch.linalg.slogdet(jacobian(lambda t: flow.transform(t, c)[0], row))[1]  # noqa: B023
        torch.testing.assert_close(slogdet, scaling.log_scale.detach().sum(), rtol=1e-9, atol=1e-9)
        z, _ = flow.transform(row, c)
        torch.testing.assert_close(log_prob[i], flow.base.log_prob(z) + slogdet, rtol=1e-10, atol=1e-10)
    y, log_prob = flow.sample_and_log_prob(4, context)
    torch.testing.assert_close(flow.log_prob(y, context), log_prob, rtol=1e-9, atol=1e-9)


@each
def test_gradients_of_log_prob(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    options = {**VARIANTS[variant], "hidden_features": (4, 4), "transforms": 2, "activation": "tanh"}
    flow = randomised(nice(4, **options))
    context = context_of(flow, 2)
    given = [torch.randn(2, 4, dtype=DOUBLE), *([] if context is None else [context])]
    names = list(dict(flow.named_parameters()))

    def log_prob(*tensors: Tensor) -> Tensor:
        parameters = dict(zip(names, tensors[len(given) :], strict=True))
        return torch.func.functional_call(flow, parameters, tensors[: len(given)])

    assert torch.autograd.gradcheck(log_prob, [t.detach().requires_grad_() for t in (*given, *flow.parameters())])


def test_48_couplings_are_undone_in_float32() -> None:
    flow = NICE(16, transforms=48, hidden_features=(64, 64))
    with torch.no_grad():
        for coupling in list(flow.transform)[:-1]:
            for parameter in coupling.conditioner.layers[-1].parameters():
                parameter.normal_(std=0.02)
    x = torch.randn(50, 16)
    back, _ = flow.transform.inverse(flow.transform(x)[0])
    assert (back - x).norm() <= 1e-4 * x.norm()


@each
def test_config_and_state_dict_build_the_same_flow(variant: str, randomised) -> None:  # type: ignore[no-untyped-def]
    flow = randomised(nice(**VARIANTS[variant]))
    x, context = torch.randn(6, 5, dtype=DOUBLE), context_of(flow, 6)
    flow.fit_standardisation(x)
    twin = NICE(**json.loads(json.dumps(flow.config))).double()
    twin.load_state_dict(flow.state_dict())
    assert twin.config == flow.config
    for other in (twin, copy.deepcopy(flow)):
        assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))


def test_it_starts_as_its_base_and_compiles() -> None:
    flow = nice()
    x = torch.randn(7, 5)
    torch.testing.assert_close(flow.log_prob(x), StandardNormal(5).log_prob(x))
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow(x))
    grads = torch.autograd.grad(compiled(x).sum(), list(flow.parameters()))
    for grad, truth in zip(grads, torch.autograd.grad(flow(x).sum(), list(flow.parameters())), strict=True):
        torch.testing.assert_close(grad, truth, rtol=1e-4, atol=1e-5)


def test_the_logistic_is_its_formula() -> None:
    base = StandardLogistic(3, dtype=DOUBLE)
    z = torch.randn(7, 3, dtype=DOUBLE, requires_grad=True)
    torch.testing.assert_close(base.log_prob(z), (z - 2 * torch.log1p(z.exp())).sum(-1))
    assert torch.autograd.gradcheck(base.log_prob, (z,))
    far = torch.tensor([[800.0], [-800.0]], dtype=DOUBLE)
    torch.testing.assert_close(StandardLogistic(1).log_prob(far), torch.tensor([-800.0, -800.0], dtype=DOUBLE))


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16])
def test_the_logistic_draws_what_it_says(dtype: torch.dtype) -> None:
    base = StandardLogistic(1, dtype=dtype)
    z = base.sample((20000,), generator=torch.Generator().manual_seed(0))
    assert z.dtype == dtype and z.shape == (20000, 1) and z.isfinite().all()
    assert base.log_prob(z).dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
    # The standard error of the deviation pi / sqrt 3 = 1.81 of 20000 draws is 0.012.
    assert abs(z.double().std() - math.pi / math.sqrt(3)) < 0.05 and abs(z.double().mean()) < 0.05
    share = (z.double() < 1.0).double().mean()
    assert abs(share - 1 / (1 + math.exp(-1))) < 0.015


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NICE(0), "features: expected at least 1, found 0"),
        (lambda: NICE(1), "features: expected at least 2 for couplings, found 1"),
        (lambda: nice(transforms=0), "transforms: expected at least 1, found 0"),
        (lambda: nice(base={"base": "Logistic"}), "base: expected 'base' to be one of StandardNormal"),
        (lambda: StandardLogistic(0), "features: expected at least 1, found 0"),
        (lambda: StandardLogistic(2).log_prob(torch.zeros(3)), r"z: expected shape \(..., 2\), found \(3,\)"),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()
