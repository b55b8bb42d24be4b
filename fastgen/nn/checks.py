"""Checks of sizes that networks and flows share."""

from __future__ import annotations

from collections.abc import Sequence

# Far above any that is used: the degrees of more would fill the memory before their weights are asked for.
LARGEST_WIDTH = 2**20


def check_counts(least: int, **counts: int) -> None:
    """Raises ValueError, naming the first of them that is less than `least`."""
    for name, value in counts.items():
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, found {value}")


def check_widths(hidden_features: Sequence[int], residual: bool) -> None:
    """Raises TypeError or ValueError unless these are widths of hidden layers, equal ones for residual blocks."""
    if not isinstance(hidden_features, Sequence):
        raise TypeError(f"hidden_features: expected a sequence of widths, found {hidden_features!r}")
    if any(width < 1 for width in hidden_features):
        raise ValueError(f"hidden_features: expected widths of at least 1, found {tuple(hidden_features)}")
    if any(width > LARGEST_WIDTH for width in hidden_features):
        raise ValueError(f"hidden_features: expected widths of at most {LARGEST_WIDTH}, found {tuple(hidden_features)}")
    if residual and len(set(hidden_features)) > 1:
        raise ValueError(f"hidden_features: expected equal widths with residual blocks, found {tuple(hidden_features)}")
