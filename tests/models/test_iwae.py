"""Importance-weighted bounds and their two gradients."""

from __future__ import annotations

import math

import pytest
import torch
from small_vaes import D, linear_gaussian, model, rows

from fastgen.models import IWAE, VAE
from fastgen.models.vae import POSTERIORS


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_bound_is_the_mean_weight(posterior):
    iwae = model(IWAE, posterior=posterior, samples=6)
    x = rows("bernoulli", 2, 3)
    torch.manual_seed(0)
    log_w = iwae.log_weights(x, 6)
    torch.manual_seed(0)
    torch.testing.assert_close(iwae(x), log_w.logsumexp(0) - math.log(6), rtol=1e-12, atol=1e-12)
    assert iwae.bound(x, 2).shape == (2, 3) and iwae(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_one_weight_is_the_bound_of_a_vae(posterior):
    iwae, vae = model(IWAE, posterior=posterior, samples=1), model(posterior=posterior)
    x = rows("bernoulli", 400)
    for seed in range(3):
        values = []
        for each in (lambda: iwae(x), lambda: vae.log_weights(x, 1)[0]):
            torch.manual_seed(seed)
            values.append(each())
        torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    # The divergence of a VAE may be in closed form; the expectations are equal.
    found, bound = iwae.bound(x, 1), vae.elbo(x)
    assert (found.mean() - bound.mean()).abs() < 5 * float((found - bound).detach().std()) / math.sqrt(400) + 1e-9


def test_more_weights_are_a_tighter_bound():
    iwae, x, truth = linear_gaussian(IWAE)
    with torch.no_grad():
        means = [torch.stack([iwae.bound(x, k) for _ in range(800 // k)]).mean().item() for k in (1, 5, 50)]
    assert means == sorted(means) and means[-1] < truth.mean().item() + 0.02


def _gradients(iwae: IWAE, x: torch.Tensor, draws: int) -> torch.Tensor:
    """(draws, parameters): of the encoder's parameters, for one batch each."""
    parameters = list(iwae.encoder.parameters())
    found = []
    for _ in range(draws):
        gradients = torch.autograd.grad(iwae(x).mean(), parameters)
        found.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(found)


def test_the_doubly_reparameterised_gradient_is_the_same_on_average_and_varies_less():
    plain, x, _ = linear_gaussian(IWAE, samples=8)
    doubly, _, _ = linear_gaussian(IWAE, samples=8, doubly_reparameterised=True)
    doubly.load_state_dict(plain.state_dict())
    torch.manual_seed(0)
    values = []
    for each in (plain, doubly):
        torch.manual_seed(5)
        values.append(each(x))
    torch.testing.assert_close(*values, rtol=1e-11, atol=1e-11)
    draws = 500
    first, second = _gradients(plain, x[:5], draws), _gradients(doubly, x[:5], draws)
    error = ((first.var(0) + second.var(0)) / draws).sqrt()
    # 20 parameters, all within four and a half standard errors of the difference.
    assert ((first.mean(0) - second.mean(0)).abs() < 4.5 * error + 1e-12).all()
    assert second.var(0).sum() < 0.5 * first.var(0).sum()


def test_the_decoders_gradient_stays_what_it_is():
    plain, x, _ = linear_gaussian(IWAE, samples=8)
    doubly, _, _ = linear_gaussian(IWAE, samples=8, doubly_reparameterised=True)
    doubly.load_state_dict(plain.state_dict())
    found = []
    for each in (plain, doubly):
        torch.manual_seed(5)
        found.append(torch.autograd.grad(each(x).mean(), list(each.decoder.parameters())))
    for gradient, other in zip(*found, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        assert doubly(x).isfinite().all()


def test_at_the_true_posterior_the_gradient_vanishes():
    """There all weights are equal: doubly reparameterised gradients are zero, the others only on average."""
    doubly, x, _ = linear_gaussian(IWAE, samples=4, doubly_reparameterised=True)
    with torch.no_grad():
        # Orthogonal columns: the true posterior is diagonal.
        decoder, encoder = doubly.decoder.network.layers[0], doubly.encoder.layers[0]
        decoder.weight.copy_(torch.eye(4, 2) * 1.5)
        noise = doubly.decoder.log_scale.exp() ** 2
        gain = 1.5 / (1 + 1.5**2 / noise) / noise
        encoder.weight[:2] = gain * torch.eye(2, 4)
        encoder.bias[:2] = -gain * decoder.bias[:2]
        encoder.bias[2:] = -(1 + 1.5**2 / noise).log()
    bound = doubly(x)
    assert (doubly.log_weights(x, 5).std(0) < 1e-10).all()
    for gradient in torch.autograd.grad(bound.mean(), list(doubly.encoder.parameters())):
        assert gradient.abs().max() < 1e-10


def test_bad_arguments_are_named():
    for options, message in (
        ({"samples": 0}, "samples: expected at least 1, found 0"),
        ({"free_bits": 0.5}, "free_bits: expected 0 with importance weights, found 0.5"),
        ({"doubly_reparameterised": True, "posterior": "iaf"}, "doubly_reparameterised: expected False with a iaf posterior"),
    ):
        with pytest.raises(ValueError, match=message):
            IWAE(D, **options)
    assert issubclass(IWAE, VAE) and "free_bits" not in IWAE(D).config
