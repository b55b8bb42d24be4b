"""What the tests of measurements share: everything takes milliseconds."""

from __future__ import annotations

import pytest

from fastgen.bench import ceilings, timing
from fastgen.bench import measure as measuring


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SECONDS", {True: 0.01, False: 0.01})
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(timing, "_WARM_UP_SECONDS", 1e-4)
    monkeypatch.setattr(ceilings, "_SECONDS", 0.001)
    monkeypatch.setattr(ceilings, "_GEMM_SIZE", {"cpu": 32, "cuda": 32})
    monkeypatch.setattr(ceilings, "_found", {})
