"""The CUDA C++ kernels, compiled with no GPU at hand: what they take of a multiprocessor."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Tiles of 8, 16 and 32 rows and two places for their state in float32, of 8 rows in float64; each forward and backward.
KERNELS = 14


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_90"])
def test_no_register_is_spilled(architecture: str, tmp_path: Path) -> None:
    source = ROOT / "csrc/cuda/autoregressive_inverse.cu"
    command = ["nvcc", "-std=c++17", "-O3", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", "-I", ROOT / "csrc"]
    run = subprocess.run([*command, source, "-o", tmp_path / "kernels.cubin"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", run.stderr)
    assert len(spills) == KERNELS
    assert all(numbers == ("0", "0", "0") for numbers in spills)
