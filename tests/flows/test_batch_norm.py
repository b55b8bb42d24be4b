from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from fastgen.flows import MAF, BatchNorm, Composed, MaskedAutoregressiveTransform

D = 3
DOUBLE = torch.float64


def layer() -> BatchNorm:
    """With all its numbers away from where they start."""
    torch.manual_seed(0)
    norm = BatchNorm(D, momentum=0.3, eps=1e-3, dtype=DOUBLE)
    with torch.no_grad():
        norm.log_scale.normal_(std=0.5)
        norm.shift.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3.0)
    return norm


def by_hand(norm: BatchNorm, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    deviation = (var + norm.eps).sqrt()
    return (x - mean) / deviation * norm.log_scale.exp() + norm.shift, (norm.log_scale - deviation.log()).sum()


def test_evaluation_mode_is_an_exact_transform_of_the_running_statistics(check_transform) -> None:  # type: ignore[no-untyped-def]
    norm = layer().eval()
    x = torch.randn(4, D, dtype=DOUBLE)
    check_transform(norm, x)
    z, log_det = norm(x)
    expected, own = by_hand(norm, x, norm.running_mean, norm.running_var)
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, own.expand(4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (2,), (2, 5), (3, 1, 4)])
def test_training_mode_takes_the_statistics_of_all_rows(shape: tuple[int, ...]) -> None:
    norm = layer()
    start = copy.deepcopy(norm)
    x = (5 + 2 * torch.randn(*shape, D, dtype=DOUBLE)).requires_grad_()
    weight, given = torch.randn(*shape, D, dtype=DOUBLE), torch.randn(shape, dtype=DOUBLE)
    z, log_det = norm(x, log_det=given)
    rows = x.flatten(0, -2)
    mean, var = rows.mean(0), rows.var(0, correction=0)
    expected, own = by_hand(norm, x, mean, var)
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, given + own, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_mean, start.running_mean.lerp(mean, 0.3), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_var, start.running_var.lerp(rows.var(0), 0.3), rtol=1e-12, atol=1e-12)
    # Gradients go through mean and variance.
    inputs = (x, norm.log_scale, norm.shift)
    grads = torch.autograd.grad((z * weight).sum() + log_det.sum(), inputs)
    truths = torch.autograd.grad((expected * weight).sum() + (given + own).sum(), inputs)
    for grad, truth in zip(grads, truths, strict=True):
        torch.testing.assert_close(grad, truth, rtol=1e-10, atol=1e-10)


def test_gradients_through_the_batch_statistics() -> None:
    norm = layer()
    x = torch.randn(5, D, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,)) and torch.autograd.gradgradcheck(norm, (x,))


def test_the_log_det_in_training_mode_is_that_at_fixed_statistics() -> None:
    norm = layer()
    x = torch.randn(6, D, dtype=DOUBLE)
    _, log_det = norm(x)
    fixed = copy.deepcopy(norm).eval()
    with torch.no_grad():
        fixed.running_mean.copy_(x.mean(0))
        fixed.running_var.copy_(x.var(0, correction=0))
    for i, row in enumerate(x):
        truth = torch.linalg.slogdet(jacobian(lambda t: fixed(t)[0], row))[1]
        torch.testing.assert_close(log_det[i], truth, rtol=1e-12, atol=1e-12)


def test_a_batch_is_normalised() -> None:
    z, _ = BatchNorm(D)(100 + 7 * torch.randn(4000, D))
    # float32 data of mean 100 and deviation 7 carry six digits of their deviation.
    torch.testing.assert_close(z.mean(0), torch.zeros(D), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(D), rtol=0, atol=1e-5)


def test_statistics_are_summed_in_float64() -> None:
    x = 1e4 + torch.randn(50000, 1, generator=torch.Generator().manual_seed(0))
    norm = BatchNorm(1, momentum=1.0)
    norm(x)
    truth = x.double()
    # The roundings to float32 of the results alone: the mean to 1e4 eps / 2.
    torch.testing.assert_close(norm.running_mean.double(), truth.mean(0), rtol=6e-8, atol=0)
    torch.testing.assert_close(norm.running_var.double(), truth.var(0), rtol=1e-7, atol=0)


def test_equals_nflows() -> None:
    nflows = pytest.importorskip("nflows.transforms.normalization", reason="nflows is not installed")
    torch.manual_seed(0)
    theirs = nflows.BatchNorm(D, eps=1e-5, momentum=0.1).double()
    torch.nn.init.normal_(theirs.unconstrained_weight)
    torch.nn.init.normal_(theirs.bias)
    ours = BatchNorm(D, dtype=DOUBLE)
    with torch.no_grad():
        ours.log_scale.copy_(theirs.weight.log())
        ours.shift.copy_(theirs.bias)
        theirs.running_var.fill_(1.0)
    n = 9
    for _ in range(3):
        x = 2 + 3 * torch.randn(n, D, dtype=DOUBLE)
        z, _ = ours(x)
        # nflows divides the sum of squares by n - 1: its eps is ours where both are scaled by n / (n - 1).
        rescaled = BatchNorm(D, eps=theirs.eps * (n - 1) / n, dtype=DOUBLE)
        rescaled.load_state_dict(ours.state_dict())
        expected, expected_log_det = theirs(x)
        factor = ((n - 1) / n) ** 0.5
        torch.testing.assert_close((rescaled(x)[0] - ours.shift) * factor + ours.shift, expected, rtol=1e-12, atol=1e-12)
        scaled_log_det = rescaled(x)[1] + D * torch.tensor(factor, dtype=DOUBLE).log()
        torch.testing.assert_close(scaled_log_det, expected_log_det, rtol=1e-12, atol=1e-12)
    ours.eval(), theirs.eval()
    for value, expected in zip((*ours(x), *ours.inverse(z)), (*theirs(x), *theirs.inverse(z)), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_a_nan_does_not_spoil_the_running_statistics() -> None:
    norm = BatchNorm(2)
    norm(torch.tensor([[1.0, torch.nan], [3.0, 1.0]]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.2, 0.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([1.1, 1.0]))


@pytest.mark.parametrize("shape", [(3,), (0, D), (2, 5, D)])
def test_shapes_and_dtypes(shape: tuple[int, ...]) -> None:
    for dtype in (DOUBLE, torch.float32, torch.bfloat16):
        norm = layer().to(dtype).eval()
        x = torch.randn(shape, dtype=dtype)
        z, log_det = norm(x)
        assert z.shape == shape and z.dtype == dtype and log_det.shape == shape[:-1]
        assert log_det.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
        assert norm.inverse(z)[0].dtype == dtype


def test_a_flow_with_batch_norm() -> None:
    torch.manual_seed(0)
    flow = MAF(D, transforms=2, hidden_features=(16,), batch_norm=True, dtype=DOUBLE)
    assert [type(t) for t in flow.transform] == [MaskedAutoregressiveTransform, BatchNorm] * 2
    x = 3 + 2 * torch.randn(200, D, dtype=DOUBLE)
    optimizer = torch.optim.Adam(flow.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        (-flow(x).mean()).backward()
        optimizer.step()
    with pytest.raises(RuntimeError, match=r"BatchNorm: expected evaluation mode \(`.eval\(\)`\) for its inverse"):
        flow.sample(2)
    with torch.no_grad():
        for _ in range(100):
            trained = flow(x).mean()
        flow.eval()
        # The running statistics have followed: 0.9^100 of the older ones is left, and a variance 200 / 199 of the batch's.
        assert abs(float(flow(x).mean() - trained)) < 0.01
    y, log_prob = flow.sample_and_log_prob(5)
    torch.testing.assert_close(flow.log_prob(y), log_prob, rtol=1e-9, atol=1e-9)
    assert torch.equal(flow.log_prob(x)[:3], flow.log_prob(x[:3]))
    # Far-out samples of a normal, transformed: the empirical moments of 4000 are within a fifth.
    assert ((flow.sample(4000).mean(0) - 3).abs() < 0.4).all()


@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training: bool) -> None:
    torch.manual_seed(0)
    norm = Composed([BatchNorm(D), BatchNorm(D)]).train(training)
    twin = copy.deepcopy(norm)
    x = torch.randn(6, D)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    for value, expected in zip(compiled(x), twin(x), strict=True):
        torch.testing.assert_close(value, expected)
    for value, expected in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchNorm(0), "features: expected at least 1, found 0"),
        (lambda: BatchNorm(2, momentum=0.0), r"momentum: expected a number in \(0, 1\], found 0.0"),
        (lambda: BatchNorm(2, eps=0.0), "eps: expected a positive number, found 0.0"),
        (lambda: BatchNorm(2)(torch.zeros(1, 2)), "x: expected at least 2 rows in training mode, found 1"),
        (lambda: BatchNorm(2)(torch.zeros(0, 2)), "x: expected at least 2 rows in training mode, found 0"),
        (lambda: BatchNorm(2)(torch.zeros(4, 3)), r"x: expected shape \(..., 2\), found \(4, 3\)"),
        (lambda: BatchNorm(2).eval().inverse(torch.zeros(4, 3)), r"z: expected shape \(..., 2\), found \(4, 3\)"),
    ],
)
def test_bad_arguments_are_named(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        build()
