"""The CUDA C++ kernels, compiled for GPUs that need not be there."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from .machine_code import MachineCode, of_cubin

ROOT = Path(__file__).parents[2]


def sources() -> list[Path]:
    """Every .cu of the checkout; an installed fastgen has none."""
    return sorted((ROOT / "csrc/cuda").glob("*.cu"))


@cache
def version() -> str | None:
    """Of nvcc, as 13.0; None where there is none."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    report = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\S+),", report)
    return found[1] if found else None


def compile(source: Path, target: str) -> dict[str, MachineCode]:
    """The kernels of a source, by their bare names in C++. Raises RuntimeError for what nvcc refuses."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [
            "nvcc",
            "-std=c++17",
            "-O3",
            f"-arch={target}",
            "-cubin",
            "-I",
            str(ROOT / "csrc"),
            str(source),
            "-o",
            str(cubin),
        ]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{source.name}: nvcc: {run.stderr.strip()}")
        found = of_cubin(cubin.read_bytes())
    return dict(zip(_readable(list(found)), found.values(), strict=True))


def dtype_of(name: str) -> str:
    """What a kernel of this name computes in, a key of `budget.DTYPES`."""
    named = {"double": "float64", "Bfloat16": "bfloat16", "Tf32": "tf32"}
    return next((dtype for argument, dtype in named.items() if argument in name), "float32")


def _readable(mangled: list[str]) -> list[str]:
    """Names without namespaces and arguments, as `solve<8, Forward<float>>`."""
    names = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    bare = re.sub(r"^void |\(anonymous namespace\)::|\b\w+::", "", names, flags=re.MULTILINE)
    return [name.split("(")[0].replace("> >", ">>") for name in bare.splitlines()]
