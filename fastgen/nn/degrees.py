"""Degrees: the order in which a MADE generates features, and what each hidden unit may see of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

ORDERS = ("natural", "reversed", "random")
HIDDEN_DEGREES = ("spread", "random")


def draw_seed() -> int:
    """A seed drawn from torch's generator, so that torch.manual_seed rules it."""
    return int(torch.randint(2**31, ()))


def seeds(seed: int | None, count: int) -> list[int | None]:
    """`count` seeds that follow from one; None stays None."""
    rng = random.Random(seed)
    return [None if seed is None else int(rng.random() * 2**31) for _ in range(count)]


def random_permutation(count: int, rng: random.Random) -> Tensor:
    """A permutation of 0..count-1: int64, (count,)."""
    # Of Python's generator only random() is promised never to change: models are rebuilt from their seeds.
    return torch.tensor([rng.random() for _ in range(count)], dtype=torch.float64).argsort()


def feature_degrees(order: str | Sequence[int] | Tensor, features: int, rng: random.Random) -> Tensor:
    """The degree of each feature, a permutation of 1..features: int64, (features,).

    Raises ValueError for an unknown order or one that is not a permutation of 1..features.
    """
    natural = torch.arange(1, features + 1)
    if isinstance(order, str):
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {', '.join(ORDERS)} or a permutation, found {order!r}")
        if order == "random":
            return random_permutation(features, rng) + 1
        return natural.flip(0) if order == "reversed" else natural
    degrees = torch.as_tensor(order, device="cpu")
    if (
        degrees.shape != (features,)
        or degrees.is_floating_point()
        or not torch.equal(degrees.sort().values, natural.to(degrees))
    ):
        raise ValueError(f"order: expected a permutation of 1..{features}, found {degrees.tolist()}")
    return degrees.to(torch.int64, copy=True)


def hidden_degrees(kind: str, width: int, lowest: int, features: int, rng: random.Random) -> Tensor:
    """The degrees of a hidden layer, in [lowest, features) and sorted: int64, (width,).

    "spread": equally spread, unit h has lowest + floor(h n / width), n = features - lowest.
    "random": every degree once where there is room, else the lowest once, and the others drawn uniformly. So no output loses
    sight of a feature that it may depend on.

    Raises ValueError for another kind.
    """
    if kind not in HIDDEN_DEGREES:
        raise ValueError(f"hidden_degrees: expected one of {', '.join(HIDDEN_DEGREES)}, found {kind!r}")
    n = features - lowest
    if kind == "spread":
        return lowest + torch.arange(width) * n // width
    given = list(range(n)) if width >= n else [0]
    drawn = [int(rng.random() * n) for _ in range(width - len(given))]
    return lowest + torch.tensor(sorted(given + drawn))


def fan_in(in_degrees: Tensor, out_degrees: Tensor, strict: bool) -> Tensor:
    """How many inputs each output sees: int64, (out,)."""
    return torch.searchsorted(in_degrees.sort().values, out_degrees, right=not strict)
