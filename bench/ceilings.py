"""The roofs: what this machine does in a matrix product and in a copy, measured in the same run as everything else."""

from __future__ import annotations

from functools import cache

import torch

from .timing import interleave

# Wide enough to be limited by arithmetic, small enough to take no time.
_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
_SECONDS = 0.5


@cache
def gemm_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP per second of a square matrix product, at its best."""
    n = _GEMM_SIZE[device]
    a, b, c = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(3))
    times = interleave({"gemm": lambda: torch.mm(a, b, out=c)}, device=device, seconds=_SECONDS)
    return 2 * n**3 / min(times["gemm"])


def copy_bandwidth(device: str, nbytes: float) -> float:
    """Bytes per second, read and written, of a copy at its best that moves about `nbytes`: small ones stay in the caches."""
    return _copy_bandwidth(device, max(12, round(nbytes).bit_length()))


@cache
def _copy_bandwidth(device: str, bits: int) -> float:
    source = torch.ones(2 ** (bits - 1), dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    times = interleave({"copy": lambda: target.copy_(source)}, device=device, seconds=_SECONDS)
    return 2 * source.numel() / min(times["copy"])
