"""The importance-weighted bound as an operation."""

from __future__ import annotations

from ..reference import iwae_bound

__all__ = ["iwae_bound"]
