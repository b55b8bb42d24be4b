"""What the README shows is true: its examples run, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, torch.Tensor] = {}
    exec("\n".join(EXAMPLES), names)
    assert names["samples"].shape == (10, 8) and names["log_prob"].shape == (10,)
    assert names["y"].shape == names["layer"](names["x"]).shape == (512, 28)
    assert len(names["records"]) == 5 and (tmp_path / "runs" / "mine" / "checkpoint.safetensors").exists()
    assert names["shift"].shape == names["log_scale"].shape == (512, 8)


def test_the_first_example_has_ten_lines() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) == 10


def test_the_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "bench"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
