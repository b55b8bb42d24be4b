from __future__ import annotations

import numpy as np
import pytest
from density import shifted
from scipy.stats import multivariate_normal

from fastgen import data
from fastgen.data import Dataset, Part
from fastgen.train.baselines import fit_gaussians, fit_independent


def test_log_prob_is_scipys():
    rng = np.random.default_rng(0)
    mixed = (rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))).astype(np.float32)
    gaussians = fit_gaussians(Dataset("x", 0, *[Part(mixed)] * 3))
    covariance = np.cov(mixed.astype(np.float64), rowvar=False, bias=True)
    for name, expected in (("diagonal Gaussian", np.diag(np.diag(covariance))), ("full-covariance Gaussian", covariance)):
        truth = multivariate_normal(mixed.mean(axis=0, dtype=np.float64), expected).logpdf(mixed.astype(np.float64))
        # The ridge moves variances by a millionth; distances reach about 4 standard deviations.
        np.testing.assert_allclose(gaussians[name].log_prob(mixed), truth, rtol=0, atol=1e-3)


def test_no_gaussian_of_another_mean_or_covariance_fits_better():
    rows = shifted(rows=200)
    full = fit_gaussians(rows)["full-covariance Gaussian"]
    best = full.log_prob(rows.train.rows).mean()
    for scale in (0.9, 1.1):
        assert multivariate_normal(full.mean, full.covariance * scale).logpdf(rows.train.rows).mean() < best
    assert multivariate_normal(full.mean + 0.05, full.covariance).logpdf(rows.train.rows).mean() < best


def test_noise_of_the_epochs_is_taken_in_exactly():
    digits = data.digits()
    noisy = np.concatenate([digits.epoch(i, 256, 0)[0].read().rows for i in range(100)]).astype(np.float64)
    full = fit_gaussians(digits)["full-covariance Gaussian"]
    # Over 126 thousand draws the noise adds a standard error of 0.0008 to a mean and of 0.006 to a covariance.
    np.testing.assert_allclose(full.mean, noisy.mean(axis=0), atol=0.005)
    np.testing.assert_allclose(full.covariance, np.cov(noisy, rowvar=False, bias=True), atol=0.03)
    # Constant pixels hold nothing but the noise.
    assert full.covariance.diagonal().min() == pytest.approx(1 / 12, rel=1e-3)
    assert np.isfinite(full.log_prob(digits.test.rows)).all()


def test_constant_features_keep_a_density():
    rows = np.ones((20, 2), np.float32)
    rows[:, 0] = np.arange(20)
    for gaussian in fit_gaussians(Dataset("x", 0, *[Part(rows)] * 3)).values():
        assert np.isfinite(gaussian.log_prob(rows)).all()
    for gaussian in fit_gaussians(Dataset("x", 0, *[Part(rows[:, 1:])] * 3)).values():
        assert np.isfinite(gaussian.log_prob(rows[:, 1:])).all()


def test_independent_features_are_fitted_to_what_is_handed_out():
    digits = data.digits().binarised()
    found = np.exp(fit_independent(digits).log_probability)
    assert found.shape == (64, 2)
    ones = next(digits.held_out("train")).rows.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found[:, 1], (ones + 1) / (len(digits.train) + 2), rtol=1e-12)
