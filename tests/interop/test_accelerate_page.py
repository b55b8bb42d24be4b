"""What docs/accelerate.md shows is true: its examples run, and what it says of a report is the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fastgen

PAGE = (Path(__file__).parents[2] / "docs" / "accelerate.md").read_text()
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^#)", PAGE, re.DOTALL | re.MULTILINE))
NEEDS = {
    "nflows": "nflows",
    "normflows": "normflows",
    "zuko": "zuko",
    "Pyro": "pyro",
    "FrEIA": "FrEIA",
    "Plain PyTorch": "torch",
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_examples_run(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(NEEDS[section], reason=f"{section} is not installed")
    torch.manual_seed(0)
    names = {"torch": torch}
    blocks = re.findall(r"```(\w*)\n(.*?)```", SECTIONS[section], re.DOTALL)
    exec("\n".join(text for language, text in blocks if language == "python"), names)
    assert capsys.readouterr().out == "".join(text for language, text in blocks if not language)
    model = next(names[name] for name in ("flow", "model", "made") if name in names)
    assert fastgen.accelerate_report(model).replaced
