"""Reparameterised samples with a divergence or a log-ratio, as operations."""

from __future__ import annotations

from ..reference import gaussian_rsample_kl, gaussian_rsample_log_ratio

__all__ = ["gaussian_rsample_kl", "gaussian_rsample_log_ratio"]
