"""What every test of accelerated models runs under."""

from __future__ import annotations

import pytest

from fastgen.interop import network


@pytest.fixture(autouse=True)
def small_networks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as small as those of tests run on fastgen too, with gradients and sorted."""
    monkeypatch.setattr(network, "GRADIENTS_FROM", 0)
    monkeypatch.setattr(network, "SORTED_FROM", 0)
