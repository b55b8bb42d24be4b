"""The VAE against torch.distributions in float64 with the same noise, and against models whose likelihood is known."""

from __future__ import annotations

import copy
import itertools
import json
import math

import pytest
import torch
from small_vaes import DOUBLE, LEVELS, D, L, linear_gaussian, model, rows
from torch import Tensor
from torch import distributions as td

from fastgen import ops
from fastgen.flows import Bounds, Standardise
from fastgen.models import IWAE, VAE
from fastgen.models.decoders import DECODERS, LOG_SCALES
from fastgen.models.vae import POSTERIORS


def noise_of(vae: VAE, x: Tensor, samples: int | None) -> Tensor:
    """The noise that the next sample of the posterior's Gaussian is made of; the generator stays where it is."""
    mean, log_var = vae.encode(x)
    state = torch.get_rng_state()
    if samples is None:
        z, _ = ops.gaussian_rsample_kl(mean, log_var)
    else:
        z, _ = ops.gaussian_rsample_log_ratio(mean, log_var, samples=samples)
    torch.set_rng_state(state)
    return ((z - mean) * (-0.5 * log_var).exp()).detach()


def plain_log_prob(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z) by the distributions of torch."""
    outputs = vae.decoder.network(z)
    if vae.likelihood == "bernoulli":
        return (x * outputs.sigmoid().log() + (1 - x) * (1 - outputs.sigmoid()).log()).sum(-1)
    shared = vae.decoder.log_scale
    mean, raw = outputs.chunk(2, -1) if shared is None else (outputs, shared)
    if vae.likelihood == "gaussian":
        return td.Normal(mean, raw.exp()).log_prob(x).sum(-1)
    scale, half, x = (raw - 2).exp(), 0.5 / (LEVELS - 1), x / (LEVELS - 1)
    above = torch.where(x > 1 - half, 1.0, ((x + half - mean) / scale).sigmoid())
    below = torch.where(x < half, 0.0, ((x - half - mean) / scale).sigmoid())
    return (above - below).log().sum(-1)


def plain_sample(vae: VAE, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """z, and log q(z | x) by a change of variables whose Jacobian autograd gives."""
    mean, log_var = vae.encode(x)
    first = mean + (0.5 * log_var).exp() * noise
    log_q = td.Normal(mean, (0.5 * log_var).exp()).log_prob(first).sum(-1)
    if vae.posterior_kind == "gaussian":
        return first, log_q
    encoded = vae.encoder(vae.decoder.scaled(x)).expand(*first.shape[:-1], -1)

    def pushed(z: Tensor, row: Tensor) -> Tensor:
        return vae.posterior.push(z, row)[0]

    flat, flat_encoded = first.reshape(-1, L), encoded.reshape(-1, encoded.shape[-1])
    jacobians = [
        torch.autograd.functional.jacobian(lambda z, r=r: pushed(z, r), f) for f, r in zip(flat, flat_encoded, strict=True)
    ]
    log_det = torch.stack([j.slogdet().logabsdet for j in jacobians]).view(first.shape[:-1])
    return pushed(first, encoded), log_q - log_det


KINDS = [
    *((likelihood, log_scale, "gaussian") for likelihood, log_scale in itertools.product(DECODERS, LOG_SCALES)),
    *(("bernoulli", "shared", posterior) for posterior in POSTERIORS[1:]),
]


@pytest.mark.parametrize(("likelihood", "log_scale", "posterior"), KINDS)
def test_bounds_are_those_of_the_formula(likelihood, log_scale, posterior):
    vae = model(likelihood=likelihood, log_scale=log_scale, posterior=posterior)
    x = rows(likelihood, 2, 3)
    for samples in (None, 4):
        noise = noise_of(vae, x, None if samples is None and vae.posterior.analytic else samples or 1)
        z, log_q = plain_sample(vae, x, noise)
        kl = log_q - td.Normal(0.0, 1.0).log_prob(z).sum(-1)
        if posterior == "gaussian":
            mean, log_var = vae.encode(x)
            kl = td.kl_divergence(td.Normal(mean, (0.5 * log_var).exp()), td.Normal(0.0, 1.0)).sum(-1)
        expected = (plain_log_prob(vae, x, z) - kl).view(-1, 2, 3).mean(0)
        # Differences of sigmoids in the plain formula lose digits, sums and Jacobians hardly any.
        tolerance = 1e-9 if likelihood == "discretized_logistic" else 1e-11
        torch.testing.assert_close(vae.elbo(x, samples or 1), expected, rtol=tolerance, atol=tolerance)
    noise = noise_of(vae, x, 4)
    z, log_q = plain_sample(vae, x, noise)
    expected = plain_log_prob(vae, x, z) + td.Normal(0.0, 1.0).log_prob(z).sum(-1) - log_q
    torch.testing.assert_close(vae.log_weights(x, 4), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("likelihood", "log_scale", "posterior"), [KINDS[1], KINDS[5], KINDS[6]])
def test_gradients_are_those_of_the_formula(likelihood, log_scale, posterior):
    vae = model(likelihood=likelihood, log_scale=log_scale, posterior=posterior)
    x, parameters = rows(likelihood, 6), list(vae.parameters())
    noise = noise_of(vae, x, None)
    found = torch.autograd.grad(vae.elbo(x).mean(), parameters)
    mean, log_var = vae.encode(x)
    kl = td.kl_divergence(td.Normal(mean, (0.5 * log_var).exp()), td.Normal(0.0, 1.0)).sum(-1)
    plain = plain_log_prob(vae, x, mean + (0.5 * log_var).exp() * noise) - kl
    for gradient, truth in zip(found, torch.autograd.grad(plain.mean(), parameters), strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS[1:])
def test_gradients_of_a_flow_posterior_are_those_of_the_bound(posterior):
    vae = model(posterior=posterior)
    x, parameter = rows("bernoulli", 3), vae.encoder.layers[-1].bias

    def bound() -> Tensor:
        torch.manual_seed(3)
        return vae.elbo(x, 2).sum()

    (found,) = torch.autograd.grad(bound(), parameter)
    for i in range(0, len(parameter), 5):
        values = []
        for change in (1e-5, -2e-5):
            with torch.no_grad():
                parameter[i] += change
                values.append(float(bound()))
        with torch.no_grad():
            parameter[i] += 1e-5
        # Central differences: the square of the step, and its rounding.
        assert abs((values[0] - values[1]) / 2e-5 - float(found[i])) < 1e-6 * max(1, abs(float(found[i])))


def test_the_bound_is_below_the_likelihood_and_the_estimate_at_it():
    vae, x, truth = linear_gaussian()
    bound = vae.elbo(x, 4000).detach()
    # The mean of 4000 samples of a bound that varies by about one nat.
    assert (bound < truth + 0.08).all() and (truth - bound).mean() > 0.1
    estimate, error = vae.log_prob_estimate(x, 4000)
    assert estimate.shape == error.shape == (40,)
    assert (error < 0.1).all() and (error > 0).all()
    # Forty normal errors, all within four standard errors, about two thirds within one.
    standardised = (estimate - truth) / error
    assert standardised.abs().max() < 4 and 0.5 < (standardised.abs() < 1).double().mean() < 0.9
    few, wide = vae.log_prob_estimate(x, 50)
    assert (few - truth).square().mean() > (estimate - truth).square().mean() and (wide > error).all()
    importance = vae.log_weights(x, 20).logsumexp(0) - math.log(20)
    assert bound.mean() < importance.mean() < truth.mean() + 0.05


def test_the_estimate_is_the_same_in_pieces():
    vae, x, _ = linear_gaussian()
    log_w = []

    def recorded(rows: Tensor, samples: int) -> Tensor:
        log_w.append(VAE.log_weights(vae, rows, samples))
        return log_w[-1]

    vae.log_weights = recorded
    estimate, error = vae.log_prob_estimate(x.view(5, 8, 4), 25, batch_size=80)
    assert [w.shape for w in log_w] == [(2, 40)] * 12 + [(1, 40)]
    weights = torch.cat(log_w).exp().view(25, 5, 8)
    mean = weights.mean(0)
    torch.testing.assert_close(estimate, mean.log(), rtol=1e-12, atol=1e-12)
    # The squares of the weights cancel against that of their sum.
    torch.testing.assert_close(error, weights.std(0) / mean / 5, rtol=1e-8, atol=1e-10)
    log_w.clear()
    assert vae.log_prob_estimate(x, 3, batch_size=10)[0].shape == (40,)
    assert [w.shape for w in log_w] == [(1, 10)] * 12
    assert vae.log_prob_estimate(x, 1)[1].isnan().all()


def test_free_bits_count_in_training_only():
    free = model(free_bits=0.1)
    x = rows("bernoulli", 3)
    mean, log_var = free.encode(x)
    each = td.kl_divergence(td.Normal(mean, (0.5 * log_var).exp()), td.Normal(0.0, 1.0))
    assert (each < 0.1).any() and (each > 0.1).any()
    values = []
    for training in (False, True):
        torch.manual_seed(0)
        values.append(free.train(training).elbo(x))
    torch.testing.assert_close(values[0] - values[1], (each.clamp(min=0.1) - each).sum(-1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", DECODERS)
def test_shapes(likelihood, posterior):
    vae = model(likelihood=likelihood, posterior=posterior).float()
    for batch in ((), (4,), (2, 3), (0,), (3, 0)):
        x = rows(likelihood, *batch).float()
        assert vae(x).shape == batch and vae.elbo(x, 2).shape == batch and vae(x).dtype == torch.float32
        assert vae.log_weights(x, 3).shape == (3, *batch)
        estimate, error = vae.log_prob_estimate(x, 3)
        assert estimate.shape == error.shape == batch
        assert vae.reconstruct(x).shape == vae.reconstruct(x, sample=True).shape == x.shape
        assert vae.latent(x).shape == vae.encode(x)[0].shape == (*batch, L)
    x = rows(likelihood, 4).float()
    assert vae.sample(3).shape == (3, D) and vae.sample((2, 0)).shape == (2, 0, D) and vae.sample(3, mean=True).shape == (3, D)
    # Every row by itself: expanded rows, and rows beside one that is not a number.
    assert vae.elbo(x[:1].expand(4, -1)).isfinite().all()
    x[1] = math.nan
    assert vae.elbo(x).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("posterior", ["planar", "radial"])
def test_amortised_flows_start_near_the_identity(posterior):
    vae = VAE(D, latent_features=8, posterior=posterior, transforms=6)
    encoded = vae.encoder(torch.zeros(200, D))
    # The bias alone: the weights of the last layer add something for each row.
    encoded = torch.cat([encoded[:, :16], vae.encoder.layers[-1].bias[16:].expand(200, -1)], -1)
    z = torch.randn(200, 8)
    moved, log_det = vae.posterior.push(z, encoded)
    torch.testing.assert_close(moved, z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det, torch.zeros(200), rtol=0, atol=1e-4)


def test_samples_follow_the_decoder():
    n = 40000
    for likelihood in DECODERS:
        vae = model(likelihood=likelihood)
        z = torch.randn(1, L, dtype=DOUBLE).expand(n, -1)
        x = vae.decoder.sample(z, torch.Generator().manual_seed(0))
        if likelihood == "discretized_logistic":
            assert torch.equal(x, x.round()) and x.min() >= 0 and x.max() <= LEVELS - 1
            grid = torch.arange(LEVELS, dtype=DOUBLE)[:, None].expand(-1, D)
            probability = torch.stack([plain_log_prob(_one(vae, i), grid[:, i : i + 1], z[:1]).exp() for i in range(D)], -1)
            torch.testing.assert_close(probability.sum(0), torch.ones(D, dtype=DOUBLE), rtol=1e-10, atol=1e-10)
            found = (x[None] == grid[:, None]).double().mean(1)
            # Frequencies of 40000 draws: five standard deviations.
            assert (found - probability).abs().max() < 5 * 0.5 / math.sqrt(n)
        else:
            assert likelihood != "bernoulli" or set(x.unique().tolist()) <= {0.0, 1.0}
            spread = x.std(0).clamp(min=0.01)
            assert ((x.mean(0) - vae.decoder.mean(z[:1])[0]).abs() < 5 * spread / math.sqrt(n)).all()
    generator = torch.Generator().manual_seed(5)
    first = vae.sample(3, generator=generator)
    assert torch.equal(first, vae.sample(3, generator=generator.manual_seed(5)))


def _one(vae: VAE, i: int) -> VAE:
    """The model of feature i alone."""
    one = copy.deepcopy(vae)
    last = one.decoder.network.layers[-1]
    last.weight, last.bias = torch.nn.Parameter(last.weight[i : i + 1]), torch.nn.Parameter(last.bias[i : i + 1])
    return one


@pytest.mark.parametrize("kind", [VAE, IWAE])
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", DECODERS)
def test_config_and_state_dict_build_the_same_model(kind, likelihood, posterior):
    vae = model(kind, likelihood=likelihood, posterior=posterior, log_scale="feature")
    config = json.loads(json.dumps(vae.config))
    twin = kind(**config).double().eval()
    twin.load_state_dict(vae.state_dict())
    x = rows(likelihood, 4)
    for other in (twin, copy.deepcopy(vae)):
        assert other.config == vae.config and type(other) is kind
        values = []
        for each in (vae, other):
            torch.manual_seed(2)
            values.append(each(x))
        assert torch.equal(*values)
    assert all(t.is_meta for t in kind(**config, device="meta").state_dict().values())


def test_a_preprocessing_is_part_of_the_bound():
    data = torch.rand(50, D, dtype=DOUBLE)
    before = [Bounds(0.0, 1.0, D).double()]
    before.append(Standardise.fit(before[0](data)[0]))
    vae = model(likelihood="gaussian", preprocess=before)
    bare = model(likelihood="gaussian")
    bare.load_state_dict({name: t for name, t in vae.state_dict().items() if not name.startswith("preprocess")})
    y, log_det = vae.preprocess(data)
    values = []
    for bound in (lambda: vae.elbo(data), lambda: bare.elbo(y) + log_det):
        torch.manual_seed(0)
        values.append(bound())
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    for x in (vae.sample(100), vae.reconstruct(data)):
        assert ((x > 0) & (x < 1)).all()
    twin = VAE(**json.loads(json.dumps(vae.config)))
    assert [type(t) for t in twin.preprocess] == [Bounds, Standardise]


def test_discrete_tells_probabilities_from_densities():
    assert [model(likelihood=name).discrete for name in DECODERS] == [True, False, True]
    levels = rows("discretized_logistic", 4)
    vae = model(likelihood="discretized_logistic")
    values = []
    for x in (levels, levels.long(), levels.float()):
        torch.manual_seed(0)
        values.append(vae(x))
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_autocast(posterior):
    vae = model(posterior=posterior).float()
    x = rows("bernoulli", 6).float()
    torch.manual_seed(0)
    exact = vae(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        found = vae(x)
    # Three decimal digits, in networks of two layers.
    assert found.dtype == torch.float32 and (found - exact).abs().max() < 0.1


@pytest.mark.parametrize("posterior", ["gaussian", "iaf"])
def test_compilation(posterior):
    vae = model(posterior=posterior).float()
    x = rows("bernoulli", 6).float()
    torch.manual_seed(0)
    exact = vae(x)
    torch.manual_seed(0)
    compiled = torch.compile(vae, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features: expected at least 1, found 0"),
        ({"latent_features": 0}, "latent_features: expected at least 1, found 0"),
        ({"hidden_features": (0,)}, "hidden_features: expected widths of at least 1"),
        ({"likelihood": "normal"}, "likelihood: expected one of bernoulli, gaussian, discretized_logistic, found 'normal'"),
        (
            {"likelihood": "gaussian", "log_scale": "pixel"},
            "log_scale: expected one of shared, feature, network, found",
        ),
        ({"likelihood": "discretized_logistic", "levels": 1}, "levels: expected at least 2, found 1"),
        ({"posterior": "maf"}, "posterior: expected one of gaussian, planar, radial, iaf, found 'maf'"),
        ({"posterior": "planar", "transforms": 0}, "transforms: expected at least 1, found 0"),
        ({"posterior": "iaf", "flow_context_features": 0}, "flow_context_features: expected at least 1, found 0"),
        ({"free_bits": -1.0}, "free_bits: expected a finite number of at least 0, found -1.0"),
        ({"free_bits": 0.1, "posterior": "radial"}, "free_bits: expected 0 but with a gaussian posterior, found 0.1"),
        ({"preprocess": [Bounds(0.0, 1.0, 2)]}, "preprocess: expected none but with a gaussian likelihood, found 1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"features": 2, **options})


def test_bad_data_is_named():
    vae = model()
    for x, error, message in (
        (torch.rand(3, D + 1, dtype=DOUBLE), ValueError, r"x: expected shape \(\.\.\., 5\), found \(3, 6\)"),
        ([1.0] * D, TypeError, "x: expected a tensor, found list"),
    ):
        with pytest.raises(error, match=message):
            vae.elbo(x)
    with pytest.raises(TypeError, match=r"x: expected the weight's dtype torch.float64, found torch.float32"):
        model(likelihood="gaussian").elbo(torch.rand(3, D))
    for call in (lambda: vae.elbo(rows("bernoulli", 2), 0), lambda: vae.log_prob_estimate(rows("bernoulli", 2), 0)):
        with pytest.raises(ValueError, match="samples: expected at least 1, found 0"):
            call()
    with pytest.raises(ValueError, match="n: expected at least 0 samples, found -1"):
        vae.sample(-1)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_training_raises_the_bound(posterior):
    torch.manual_seed(0)
    x = (torch.rand(256, 1) < 0.5).float().expand(-1, 8).clone()
    vae = VAE(8, latent_features=2, hidden_features=(16,), posterior=posterior, transforms=2, flow_hidden_features=(8,))
    before = vae.elbo(x, 10).mean().item()
    optimizer = torch.optim.Adam(vae.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (-vae(x).mean()).backward()
        optimizer.step()
    after = vae.elbo(x, 10).mean().item()
    # Features that are all alike: without the latent variable 8 log 2 = 5.5, with it log 2 = 0.7.
    assert before < -5 and after > -2
    assert vae.log_prob_estimate(x, 50)[0].mean().item() > after
