"""Two-dimensional densities to look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, cuts
from .part import Part

Points = NDArray[np.float64]


def moons(*, seed: int = 0, size: int = 20000) -> Dataset:
    """Two interleaved half circles of radius 1, with noise of standard deviation 0.1."""
    return _toy("moons", _moons, seed, size)


def rings(*, seed: int = 0, size: int = 20000) -> Dataset:
    """Four circles around the origin, of radius 1 to 4, with noise of standard deviation 0.1; each as dense as the others."""
    return _toy("rings", _rings, seed, size)


def spirals(*, seed: int = 0, size: int = 20000) -> Dataset:
    """Two spirals that start at the origin and wind one and a half times around it, with noise of standard deviation 0.1."""
    return _toy("spirals", _spirals, seed, size)


def pinwheel(*, seed: int = 0, size: int = 20000) -> Dataset:
    """Five arms around the origin, sheared by their distance from it (Johnson et al. 2016)."""
    return _toy("pinwheel", _pinwheel, seed, size)


def _toy(name: str, draw: Callable[[np.random.Generator, int], Points], seed: int, size: int) -> Dataset:
    if size < 10:
        raise ValueError(f"size: expected at least 10 points, found {size}")
    points = draw(np.random.default_rng([seed, 1]), size).astype(np.float32)
    train, valid, test = (Part(points[rows]) for rows in cuts(size, seed))
    return Dataset(name=name, seed=seed, train=train, valid=valid, test=test)


def _polar(radius: NDArray[np.float64] | float, angle: NDArray[np.float64]) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _moons(rng: np.random.Generator, size: int) -> Points:
    lower = rng.random(size) < 0.5
    points = _polar(1.0, rng.uniform(0, np.pi, size))
    points[lower] = np.array([1.0, 0.5]) - points[lower]
    return points + 0.1 * rng.standard_normal((size, 2))


def _rings(rng: np.random.Generator, size: int) -> Points:
    radius = rng.choice([1.0, 2.0, 3.0, 4.0], size, p=[0.1, 0.2, 0.3, 0.4])
    return _polar(radius, rng.uniform(0, 2 * np.pi, size)) + 0.1 * rng.standard_normal((size, 2))


def _spirals(rng: np.random.Generator, size: int) -> Points:
    angle = 3 * np.pi * np.sqrt(rng.random(size))
    points = _polar(angle / np.pi, angle)
    points[rng.random(size) < 0.5] *= -1
    return points + 0.1 * rng.standard_normal((size, 2))


def _pinwheel(rng: np.random.Generator, size: int) -> Points:
    arms = 5
    along = 1 + 0.3 * rng.standard_normal(size)
    across = 0.1 * rng.standard_normal(size)
    angle = 2 * np.pi / arms * rng.integers(arms, size=size) + 0.25 * np.exp(along)
    cos, sin = np.cos(angle), np.sin(angle)
    return 2 * np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)
