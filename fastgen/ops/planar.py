"""Planar flows as an operation."""

from __future__ import annotations

from ..reference import planar, planar_inverse

__all__ = ["planar", "planar_inverse"]
