from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as D

from fastgen.models import Bernoulli, Categorical, Conditional, Gaussian, Mixture
from fastgen.ops import ScaleMap

ALL = [Bernoulli(), Categorical(4), Gaussian(), Mixture(3), Mixture(1, ScaleMap("softplus", eps=1e-3))]


def truth(conditional: Conditional, outputs: torch.Tensor) -> D.Distribution:
    """The same distribution in torch.distributions."""
    if isinstance(conditional, Bernoulli):
        return D.Bernoulli(logits=outputs[..., 0])
    if isinstance(conditional, Categorical):
        return D.Categorical(logits=outputs)
    if isinstance(conditional, Gaussian):
        return D.Normal(outputs[..., 0], conditional.scale_map(outputs[..., 1]).exp())
    logits, means, log_scales = outputs.chunk(3, -1)
    return D.MixtureSameFamily(D.Categorical(logits=logits), D.Normal(means, conditional.scale_map(log_scales).exp()))


@pytest.mark.parametrize("conditional", ALL, ids=repr)
@pytest.mark.parametrize("shape", [(5,), (0, 5), (4, 1), (2, 3, 5)])
def test_log_probs_are_those_of_torch(conditional: Conditional, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    outputs = 3 * torch.randn(*shape, conditional.outputs, dtype=torch.float64)
    distribution = truth(conditional, outputs)
    x = distribution.sample().double()
    log_probs = conditional.log_probs(x, outputs)
    torch.testing.assert_close(log_probs, distribution.log_prob(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(conditional.log_prob(x, outputs), log_probs.sum(-1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("conditional", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_and_single_precision_add_up_in_float32(conditional: Conditional, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(50, 7, conditional.outputs).to(dtype)
    x = truth(conditional, outputs.float()).sample().to(dtype)
    log_prob = conditional.log_prob(x, outputs)
    assert log_prob.dtype == torch.float32
    # In bfloat16 the Gaussian's operation rounds scaled differences; the others compute in float32.
    eps = torch.finfo(dtype if isinstance(conditional, Gaussian) else torch.float32).eps
    expected = truth(conditional, outputs.double()).log_prob(x.double()).sum(-1)
    torch.testing.assert_close(log_prob.double(), expected, rtol=20 * eps, atol=20 * eps)


@pytest.mark.parametrize("conditional", ALL, ids=repr)
def test_draws_have_the_distribution(conditional: Conditional) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(conditional.outputs, dtype=torch.float64, generator=generator)
    n = 20000
    noise = conditional.noise((n,), torch.float64, torch.device("cpu"), generator)
    assert noise.shape == (n, conditional.sampler.numbers)
    x = conditional.sampler(outputs.expand(n, -1), noise)
    assert x.shape == (n,) and x.dtype == torch.float64
    distribution = truth(conditional, outputs)
    # The largest distance of two distribution functions exceeds 1.95 / sqrt(n) once in a thousand times (Kolmogorov).
    if conditional.discrete:
        values = torch.arange(max(2, conditional.outputs), dtype=torch.float64)
        cdf = distribution.log_prob(values).exp().cumsum(-1)
        found = (x[:, None] <= values).double().mean(0)
    else:
        x = x.sort().values
        cdf, found = distribution.cdf(x), torch.arange(1, n + 1) / n
    assert (cdf - found).abs().max() < 1.95 / math.sqrt(n)


def test_categories_are_drawn_where_the_distribution_function_passes() -> None:
    logits = torch.tensor([-math.inf, math.log(0.25), -math.inf, math.log(0.75), -math.inf], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.2, 0.26, 0.9, 1 - 2**-53], dtype=torch.float64)
    drawn = Categorical(5).sampler(logits.expand(5, -1), uniform[:, None])
    assert drawn.tolist() == [1, 1, 3, 3, 3]


def test_categories_are_read_one_hot_and_what_is_none_as_zeros() -> None:
    categorical = Categorical(3)
    x = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    assert categorical.encode(x, torch.float64).tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]]
    for dtype in (torch.int64, torch.uint8):
        whole = torch.tensor([[0, 2]], dtype=dtype)
        assert categorical.encode(whole, torch.float32).tolist() == [[1, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize("value", [-1.0, 3.0, 0.5, math.nan, math.inf, 1e30])
def test_values_that_are_no_category_have_probability_zero(value: float) -> None:
    outputs = torch.zeros(2, 2, 3, requires_grad=True)
    log_prob = Categorical(3).log_prob(torch.tensor([[0.0, value], [1.0, 2.0]]), outputs)
    assert log_prob[0] == -math.inf
    torch.testing.assert_close(log_prob[1], torch.tensor(-2 * math.log(3)))


def test_extreme_outputs_are_finite() -> None:
    for conditional in ALL:
        outputs = torch.full((2, 3, conditional.outputs), 1e4)
        outputs[1] = -1e4
        outputs.requires_grad_()
        log_prob = conditional.log_prob(torch.zeros(2, 3), outputs)
        (grad,) = torch.autograd.grad(log_prob.sum(), outputs)
        assert log_prob.isfinite().all() and grad.isfinite().all(), conditional


def test_a_mixture_starts_spread_out() -> None:
    for components in (1, 2, 10):
        mixture = Mixture(components)
        logits, means, log_scales = mixture.start.unflatten(0, (3, components))
        assert (logits == 0).all() and (log_scales == 0).all()
        shares = torch.special.ndtr((means[1:] + means[:-1]) / 2).diff()
        # Each component is nearest to about one part in K of N(0, 1).
        assert (shares * components > 0.8).all() and (shares * components < 1.2).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="components: expected at least 1, found 0"):
        Mixture(0)
    with pytest.raises(ValueError, match="categories: expected at least 2, found 1"):
        Categorical(1)
