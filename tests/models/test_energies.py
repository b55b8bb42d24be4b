from __future__ import annotations

import math

import pytest
import torch

from fastgen.models.energies import ENERGIES, PlanarSampler, divergence, fit_energy, log_normaliser, square

DOUBLE = torch.float64


def _table(name: str, x: float, y: float) -> float:
    """Table 1 of the paper, number by number."""
    w1, w2, w3 = math.sin(math.pi * x / 2), 3 * math.exp(-0.5 * ((x - 1) / 0.6) ** 2), 3 / (1 + math.exp(-(x - 1) / 0.3))
    if name == "U1":
        sides = math.exp(-0.5 * ((x - 2) / 0.6) ** 2) + math.exp(-0.5 * ((x + 2) / 0.6) ** 2)
        return 0.5 * ((math.hypot(x, y) - 2) / 0.4) ** 2 - math.log(sides)
    if name == "U2":
        return 0.5 * ((y - w1) / 0.4) ** 2
    first, gap, second = {"U3": (0.35, w2, 0.35), "U4": (0.4, w3, 0.35)}[name]
    return -math.log(math.exp(-0.5 * ((y - w1) / first) ** 2) + math.exp(-0.5 * ((y - w1 + gap) / second) ** 2))


@pytest.mark.parametrize("name", ENERGIES)
def test_the_energies_are_those_of_the_table(name):
    for x, y in ((0.3, -1.2), (2.0, 0.5), (-1.5, 1.5), (3.9, 0.1)):
        found = ENERGIES[name](torch.tensor([[x, y]], dtype=DOUBLE))
        assert found.shape == (1,) and float(found) == pytest.approx(_table(name, x, y), rel=1e-12)
    # Beyond the edge of the figures what had no end falls off.
    far = ENERGIES[name](torch.tensor([[4.5, 0.0], [-7.0, 0.0]], dtype=DOUBLE))
    assert (far > 3).all()


@pytest.mark.parametrize("name", ENERGIES)
def test_the_normaliser_does_not_depend_on_the_grid(name):
    coarse, fine = log_normaliser(ENERGIES[name], 500), log_normaliser(ENERGIES[name], 1000)
    # A midpoint rule on a smooth function; the edge has a second derivative that jumps.
    assert abs(coarse - fine) < 1e-5
    points = square(1000)
    edge = torch.cat([points[0], points[-1], points[:, 0], points[:, -1]])
    assert (-ENERGIES[name](edge)).max() < -15
    if name == "U2":
        # A Gaussian in y for every x: all of the length between the edges, and a half Gaussian at each.
        assert fine == pytest.approx(math.log(0.4 * math.sqrt(2 * math.pi) * (8 + 0.2 * math.sqrt(2 * math.pi))), abs=1e-5)


def test_samples_and_densities_of_the_layers_agree():
    torch.manual_seed(0)
    sampler = PlanarSampler(2, 3, restarts=2, dtype=DOUBLE)
    with torch.no_grad():
        sampler.mean.normal_()
        sampler.log_scale.normal_(std=0.2)
    x, log_prob = sampler.sample_and_log_prob(50)
    assert x.shape == (2, 50, 2) and log_prob.shape == (2, 50)
    torch.testing.assert_close(sampler.log_prob(x), log_prob, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        density = sampler.log_prob(square(800, 12.0).reshape(1, -1, 2).expand(2, -1, -1)).exp().sum(-1) * (24 / 800) ** 2
    # The midpoint rule on densities with bends of width 0.1 or so.
    torch.testing.assert_close(density, torch.ones(2, dtype=DOUBLE), rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="transforms: expected at least 1, found 0"):
        PlanarSampler(2, 0)


def test_the_divergence_is_that_of_known_densities():
    sampler = PlanarSampler(2, 1, dtype=DOUBLE)
    with torch.no_grad():
        sampler.u.copy_(sampler.w * math.log(math.e - 1) / sampler.w.square().sum())
    found, error = divergence(sampler, lambda z: 0.5 * (z / 0.8).square().sum(-1), samples=50000)
    truth = 2 * (math.log(0.8) + 0.5 / 0.64 - 0.5)
    # The layer is the identity: a standard normal against one of scale 0.8.
    assert abs(float(found) - truth) < 4 * float(error) and float(error) < 0.01


def test_a_fit_comes_near_and_the_seed_rules_it():
    settings = {"restarts": 2, "steps": 150, "samples": 128, "learning_rate": 0.03}
    state = torch.get_rng_state()
    sampler = fit_energy(ENERGIES["U2"], 4, **settings)
    assert torch.equal(state, torch.get_rng_state())
    found, _ = divergence(sampler, ENERGIES["U2"], samples=5000)
    untrained, _ = divergence(fit_energy(ENERGIES["U2"], 4, restarts=2, steps=1), ENERGIES["U2"], samples=5000)
    assert found.min() < 1 < untrained.min()
    again = fit_energy(ENERGIES["U2"], 4, **settings)
    assert all(torch.equal(a, b) for a, b in zip(sampler.parameters(), again.parameters(), strict=True))
