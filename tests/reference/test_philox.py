from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastgen.reference.philox import philox_normal, philox_words

# Random123's known answers for philox4x32-10 with counters whose upper half is 0, and one made with its formulas in Python.
KNOWN = [
    (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
]


def in_python(index: int, seed: int) -> list[int]:
    """The generator in Python's integers."""
    c, key = [index & 0xFFFFFFFF, index >> 32, 0, 0], [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ key[0], second & 0xFFFFFFFF, (first >> 32) ^ c[3] ^ key[1], first & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(index: int, seed: int) -> tuple[int, ...]:
    return tuple(int(w) for w in philox_words(torch.tensor(index), torch.tensor(seed)))


@pytest.mark.parametrize(("index", "seed", "expected"), KNOWN)
def test_known_answers(index: int, seed: int, expected: tuple[int, ...]) -> None:
    assert words(index, seed) == expected


@pytest.mark.parametrize("index", [1, 2**32 - 1, 2**32, 2**40 + 12345])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
def test_large_indices_and_negative_seeds(index: int, seed: int) -> None:
    assert words(index, seed) == tuple(in_python(index, seed))


def test_normals_are_made_of_the_words() -> None:
    seed = torch.tensor(-77)
    z = philox_normal((3, 5), seed, torch.float64)
    expected = []
    for q in range(4):
        u = [(w + 0.5) * 2.0**-32 for w in in_python(q, -77)]
        for radius, angle in (u[:2], u[2:]):
            length = math.sqrt(-2 * math.log(radius))
            expected += [length * math.cos(2 * math.pi * angle), length * math.sin(2 * math.pi * angle)]
    torch.testing.assert_close(z.flatten(), torch.tensor(expected[:15], dtype=torch.float64), rtol=1e-14, atol=1e-14)
    # float32 angles are off by up to 2 pi 2^-25 and a rounding of 2 pi.
    torch.testing.assert_close(philox_normal((3, 5), seed, torch.float32), z.float(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (1,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    assert philox_normal(shape, torch.tensor(1), torch.float32).shape == shape


def kolmogorov_smirnov(sorted_uniforms: Tensor) -> float:
    """sqrt(n) times the largest distance from the uniform distribution function: above 1.95 once in a thousand."""
    n = sorted_uniforms.numel()
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    return float(math.sqrt(n) * (steps - sorted_uniforms).abs().max())


def test_they_are_standard_normals() -> None:
    """2 10^6 draws: moments within five standard errors, and the distribution function."""
    z = philox_normal((2_000_000,), torch.tensor(3), torch.float32).double()
    n = z.numel()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float(z.pow(power).mean()) - mean) < 5 * math.sqrt(variance / n), power
    assert kolmogorov_smirnov(torch.special.ndtr(z).sort().values) < 1.95


def test_neighbours_and_seeds_are_independent() -> None:
    n = 400_000
    a, b = (philox_normal((n,), torch.tensor(seed), torch.float32).double() for seed in (5, 6))
    pairs = [(a[:-lag], a[lag:]) for lag in (1, 2, 3, 4, 64, 1000)] + [(a, b)]
    for x, y in pairs:
        for f in (lambda t: t, lambda t: t.square() - 1):
            correlation = float((f(x) * f(y)).mean() / (f(x).std() * f(y).std()))
            assert abs(correlation) < 5 / math.sqrt(x.numel())
