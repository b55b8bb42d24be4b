"""The kernels' tests in Triton's interpreter, on CPU tensors: in a process of their own, as kernels learn of it on import."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent


def _number(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


@pytest.mark.interpreter
@pytest.mark.skipif(torch.cuda.is_available(), reason="the same tests run on the CUDA device")
@pytest.mark.skipif(_number("triton") < (3, 7) and _number("numpy") >= (2, 4), reason="this interpreter needs numpy < 2.4")
@pytest.mark.parametrize(
    "name",
    [
        "test_row_kernels.py",
        "test_coupling_kernel.py",
        "test_masked_kernels.py",
        "test_masked_autoregressive_kernels.py",
        "test_layer_kernels.py",
        "test_gaussian_rsample_kl_kernels.py",
        "test_likelihood_kernels.py",
    ],
)
def test_in_the_interpreter(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(_HERE / name)]
    # Tensors are small: threads would only wait for one another.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout, result.stdout
