"""Random numbers that are a function of a seed and an index: Philox4x32-10, and normals made of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox_words(quads: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four 32-bit words for each index of `quads`, as int64 tensors of its shape.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": ten rounds, key = (low, high) word of `seed`, counter =
    (low word of the index, high word, 0, 0).

    Args:
        quads: int64, indices of groups of four words.
        seed: int64, one number.
    """
    low, high = seed & _WORD, (seed >> 32) & _WORD
    a, b = quads & _WORD, (quads >> 32) & _WORD
    c, d = torch.zeros_like(quads), torch.zeros_like(quads)
    for _ in range(10):
        # Products wrap around modulo 2^64, which their words do not feel.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((second >> 32) & _WORD) ^ b ^ low,
            second & _WORD,
            ((first >> 32) & _WORD) ^ d ^ high,
            first & _WORD,
        )
        low, high = (low + _WEYL[0]) & _WORD, (high + _WEYL[1]) & _WORD
    return a, b, c, d


def philox_normal(shape: tuple[int, ...], seed: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normals (shape), element i in row-major order from words 4 (i // 4) on: Box & Muller 1958.

    With u = (word + 1/2) 2^-32, elements 4q and 4q + 1 are sqrt(-2 ln u_0) (cos, sin)(2 pi u_1), elements 4q + 2 and 4q + 3
    the same of u_2 and u_3.

    Args:
        seed: int64, one number, on the device that the normals are to be on.
        dtype: float64, or float32 for every other: what they are computed in.
    """
    count = math.prod(shape)
    words = philox_words(torch.arange((count + 3) // 4, device=seed.device), seed)
    own = torch.float64 if dtype == torch.float64 else torch.float32
    # Each step rounded to `own`, as kernels do: near u = 1 one unit in the last place shows in the normal.
    u = [(word.to(own) + 0.5) * 2.0**-32 for word in words]
    normals = [part for radius, angle in ((u[0], u[1]), (u[2], u[3])) for part in _box_muller(radius, angle)]
    return torch.stack(normals, -1).flatten()[:count].view(shape)


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    length, angle = (-2 * u.log()).sqrt(), 2 * math.pi * v
    return length * angle.cos(), length * angle.sin()
