"""The roofs: what this machine does in a matrix product and in a copy, measured in the same run as everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .precision import name_of
from .timing import interleave

# Wide enough to be limited by arithmetic, small enough to take no time.
_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
_SECONDS = 0.5

# By what was measured and where: FLOP per second, bytes per second, seconds.
_found: dict[tuple[str, str, str], float] = {}


def gemm_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP per second of a square matrix product, at its best."""

    def measured() -> float:
        n = _GEMM_SIZE[device]
        a, b, c = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(3))
        return 2 * n**3 / _fastest(lambda: torch.mm(a, b, out=c), device)

    return _once("gemm, FLOP/s", device, name_of(dtype, device), measured)


def copy_bandwidth(device: str, nbytes: float) -> float:
    """Bytes per second, read and written, of a copy at its best that moves about `nbytes`: small ones stay in the caches."""
    bits = max(12, round(nbytes).bit_length())

    def measured() -> float:
        source = torch.ones(2 ** (bits - 1), dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        return 2 * source.numel() / _fastest(lambda: target.copy_(source), device)

    return _once("copy, bytes/s", device, str(2**bits), measured)


def launch_latency(device: str) -> float:
    """Seconds per kernel of one number, started from Python one after the other: what a short one cannot go below."""
    one = torch.zeros(1, device=device)
    return _once("launch, s", device, "1", lambda: _fastest(one.zero_, device))


def measured(device: str) -> dict[str, Any]:
    """All that was measured so far there: by quantity, then by precision or size."""
    tables: dict[str, Any] = {}
    for (quantity, where, key), value in _found.items():
        if where == device:
            tables.setdefault(quantity, {})[key] = value
    return tables


def _once(quantity: str, device: str, key: str, measure: Callable[[], float]) -> float:
    place = quantity, device, key
    if place not in _found:
        _found[place] = measure()
    return _found[place]


def _fastest(call: Callable[[], object], device: str) -> float:
    return min(interleave({"": call}, device=device, seconds=_SECONDS)[""])
