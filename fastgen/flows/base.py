"""Base distributions: what the noise of a flow is drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..ops import _check
from ..ops.gaussian_log_prob import gaussian_log_prob


class Distribution(nn.Module):
    """What a flow asks of its base. A subclass gives both methods."""

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., D) -> (...) in nats: float64 for float64 noise, else float32."""
        raise NotImplementedError

    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """(*shape, D), drawn from `generator` or from torch's own."""
        raise NotImplementedError


class StandardNormal(Distribution):
    """The standard normal distribution of D features. Raises ValueError for fewer than one."""

    like: Tensor

    def __init__(self, features: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features: expected at least 1, found {features}")
        self.features = features
        # Holds nothing: it follows the module to the device and dtype that samples are to have.
        self.register_buffer("like", torch.zeros(0, device=device, dtype=dtype), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        _check.features(z, "z", self.features)
        return gaussian_log_prob(z)

    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        size = (*shape, self.features)
        return torch.randn(size, dtype=self.like.dtype, device=self.like.device, generator=generator)

    def extra_repr(self) -> str:
        return f"features={self.features}"
