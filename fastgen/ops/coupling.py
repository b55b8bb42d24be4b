"""Coupling layers as operations."""

from __future__ import annotations

from ..reference.coupling import additive_coupling, affine_coupling

__all__ = ["additive_coupling", "affine_coupling"]
