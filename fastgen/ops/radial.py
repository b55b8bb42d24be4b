"""Radial flows as an operation."""

from __future__ import annotations

from ..reference import radial, radial_inverse

__all__ = ["radial", "radial_inverse"]
