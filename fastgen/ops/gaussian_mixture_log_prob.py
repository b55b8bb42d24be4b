"""The log-density of a mixture of Gaussians as an operation."""

from __future__ import annotations

from ..reference import gaussian_mixture_log_prob

__all__ = ["gaussian_mixture_log_prob"]
