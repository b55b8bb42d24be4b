"""What every launch needs to know of the device and of torch's settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def on_device(t: Tensor) -> torch.cuda.device_of:
    """Makes t's device current, so that a launch goes to that device's current stream; nothing for a CPU tensor."""
    return torch.cuda.device_of(t)


@dataclass(frozen=True)
class Device:
    """What a choice of tiles depends on: how many programs run side by side, and bytes of shared memory a program can have."""

    processors: int
    shared_memory: int


# Triton's interpreter runs one program after the other.
_INTERPRETER = Device(1, 1 << 30)


@lru_cache
def _gpu(device: torch.device) -> Device:
    properties = torch.cuda.get_device_properties(device)
    shared = max(properties.shared_memory_per_block, getattr(properties, "shared_memory_per_block_optin", 0))
    return Device(properties.multi_processor_count, shared)


def device_of(t: Tensor) -> Device:
    """The device t is on."""
    return _gpu(t.device) if t.is_cuda else _INTERPRETER


def allows_tf32() -> bool:
    """Whether torch's own setting lets float32 matrix products round their factors to tf32."""
    matmul = torch.backends.cuda.matmul
    # The old name raises where both interfaces were used.
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype sums are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
