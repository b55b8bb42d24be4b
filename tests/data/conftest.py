"""Real files, which lie outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture
def real():
    """The path of a real file, by its path below the folder of them; skips where that is absent."""

    def find(path: str) -> Path:
        if not (FOLDER / path).is_file():
            pytest.skip(f"needs {path} in ../shared/data or in the folder FASTGEN_TEST_DATA")
        return FOLDER / path

    return find
