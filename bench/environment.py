"""What a result was measured with: machine, versions, state of the repository, time."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from fastgen import backends

_PACKAGES = ("fastgen", "torch", "triton", "numpy", "nflows", "normflows", "zuko", "pyro-ppl", "FrEIA")


def environment(device: str) -> dict[str, Any]:
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device,
        "processor": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_variant": backends.cpu_variant(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    """The commit the benchmarks lie in, and whether anything differs from it; None outside a repository."""
    commit = _git_output("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(_git_output("status", "--porcelain"))}


def _git_output(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
