"""The command that runs another library's tests: it accelerates, it compares, it says no."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conformance import compare

pytest.importorskip("nflows", reason="nflows is not installed")

ROOT = Path(__file__).parents[2]

TESTS = """
from nflows.transforms.made import MaskedLinear
import torch

def test_passes():
    layer = MaskedLinear(torch.arange(1, 4), 5, 3, False, False)
    x = torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight * layer.mask, layer.bias))

def test_fails_always():
    assert MaskedLinear(torch.arange(1, 4), 5, 3, False, False).mask.sum() < 0

def test_is_untouched():
    assert type(MaskedLinear(torch.arange(1, 4), 5, 3, False, False)).__module__.startswith("nflows")
"""


def test_what_fails_untouched_is_listed_and_what_accelerate_breaks_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "test_layers.py"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "tests.interop.conformance", "--library", "nflows", "--tests", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 tests, 3 modules accelerated: 1 pass, 1 fail that pass untouched" in done.stdout
    assert "fail untouched too: test_layers::test_fails_always" in done.stdout
    assert "fail when accelerated: test_layers::test_is_untouched" in done.stdout


def test_no_difference_is_no_error_but_no_accelerated_module_is(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    assert compare(outcomes, outcomes, 1) == 0
    assert "fail untouched too: b" in capsys.readouterr().out
    assert compare(outcomes, outcomes, 0) == 1
