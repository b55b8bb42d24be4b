"""Batch normalisation as a transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import _check
from ..reference.accumulate import accumulator
from .checks import at_least_one, refuse_export
from .transform import Transform, spread_log_det


class BatchNorm(Transform):
    """z = (x - mean) / sqrt(var + eps) e^{log_scale} + shift, feature by feature, with log_scale and shift learned.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", appendix B; Dinh et al. 2017. In training
    mode mean and var are those of the batch, all leading axes together, and gradients go through them; the running ones
    follow, the variance as its unbiased estimate. In evaluation mode the running ones are used. log_det is that of the map
    at fixed statistics, as in the papers.

    The inverse exists in evaluation mode only: another batch's statistics would undo another map.

    Args:
        features: D.
        momentum: how far the running statistics move towards those of a batch, in (0, 1].
        eps: added to the variance.

    Raises:
        ValueError: fewer than one feature, a momentum or eps out of its range.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(features=features)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number in (0, 1], found {momentum}")
        if not eps > 0:
            raise ValueError(f"eps: expected a positive number, found {eps}")
        self.features, self.momentum, self.eps = features, momentum, eps
        self.log_scale = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        self.shift = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        self.register_buffer("running_mean", torch.zeros(features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(features, device=device, dtype=dtype))

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again."""
        return {"features": self.features, "momentum": self.momentum, "eps": self.eps}

    @property
    def exact_inverse(self) -> bool:
        """In evaluation mode only."""
        return not self.training

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As every transform's. Raises ValueError for fewer than two rows in training mode."""
        _check.floating(x, "x")
        _check.features(x, "x", self.features)
        mean, var = self._follow(x) if self.training else (self.running_mean, self.running_var)
        dtype = accumulator(x.dtype)
        log_scale = self._log_scale(var.to(dtype))
        z = (x.to(dtype) - mean.to(dtype)) * log_scale.exp() + self.shift
        return z.to(x.dtype), spread_log_det(log_scale.sum(), x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As every transform's. Raises RuntimeError in training mode."""
        if self.training:
            raise RuntimeError("BatchNorm: expected evaluation mode (`.eval()`) for its inverse, found training mode")
        _check.floating(z, "z")
        _check.features(z, "z", self.features)
        dtype = accumulator(z.dtype)
        log_scale = self._log_scale(self.running_var.to(dtype))
        x = (z.to(dtype) - self.shift) * (-log_scale).exp() + self.running_mean
        return x.to(z.dtype), spread_log_det(-log_scale.sum(), z, log_det)

    def _log_scale(self, var: Tensor) -> Tensor:
        return self.log_scale - 0.5 * (var + self.eps).log()

    def _follow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the rows of x, in float64; the running ones move towards them."""
        refuse_export("BatchNorm", "evaluation mode (`.eval()`)")
        rows = x.reshape(-1, self.features).double()
        n = len(rows)
        if n < 2:
            raise ValueError(f"x: expected at least 2 rows in training mode, found {n}")
        var, mean = torch.var_mean(rows, 0, correction=0)
        with torch.no_grad():
            for running, batch in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
                # A batch with a NaN must not spoil them for good.
                running.copy_(running.lerp(torch.where(batch.isfinite(), batch.to(running.dtype), running), self.momentum))
        return mean, var

    def extra_repr(self) -> str:
        return f"features={self.features}, momentum={self.momentum}, eps={self.eps}"
