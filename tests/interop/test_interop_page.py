"""docs/interop.md says what is so: its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parent.parent.parent / "docs" / "interop.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LIBRARIES = ("nflows", "normflows", "zuko", "pyro")


@pytest.fixture(autouse=True)
def validation() -> Iterator[None]:
    """Importing zuko switches the validation of torch.distributions off for the process."""
    distribution = torch.distributions.Distribution
    before, constraints = distribution._validate_args, distribution.arg_constraints
    yield
    distribution._validate_args, distribution.arg_constraints = before, constraints


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in LIBRARIES:
        pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(example, names)
    assert len(EXAMPLES) == 8
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["converted", "mine"]
    assert len(names["losses"]) == 10 and names["x"].shape == (100, 2)
