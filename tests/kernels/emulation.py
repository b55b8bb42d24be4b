"""The CUDA C++ kernels built for the CPU, every thread of a block a fiber, to be called in place of those on a device."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from fastgen import backends, ops
from fastgen.kernels import masked_linear
from fastgen.ops import _autoregressive_cuda, _plan
from fastgen.ops._walk import make_walk
from fastgen.reference import MaskedNetwork

ROOT = Path(__file__).parent.parent.parent
SOURCES = (
    "csrc/tensor.cpp",
    "csrc/bind/arguments.cpp",
    "csrc/bind/plan.cpp",
    "csrc/bind/network.cpp",
    "csrc/bind/autoregressive_inverse_cuda.cpp",
    "csrc/bind/autoregressive_sample_cuda.cpp",
    "tests/emulation/autoregressive.cpp",
)
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-DFASTGEN_EMULATED")
# Rows of a tile, state in shared memory, blocks, and the order in which threads that wait go on.
TILES = ((32, True, 2, 0), (16, False, 1, 1), (8, True, 3, 2))
_operation = importlib.import_module("fastgen.ops.autoregressive_inverse")
_sample = importlib.import_module("fastgen.ops.autoregressive_sample")


def build(folder: Path) -> ModuleType:
    """The emulated kernels behind the boundary of the compiled ones."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    pybind11 = pytest.importorskip("pybind11", reason="needs pybind11")
    folders = (ROOT / "csrc", ROOT / "tests/emulation", pybind11.get_include(), sysconfig.get_path("include"))
    include = [f"-I{path}" for path in folders]
    objects = [folder / f"{number}.o" for number in range(len(SOURCES))]
    runs = [
        subprocess.Popen([compiler, *FLAGS, *include, "-c", ROOT / source, "-o", to])
        for source, to in zip(SOURCES, objects, strict=True)
    ]
    assert not any([run.wait() for run in runs])
    module = folder / "_emulated.so"
    subprocess.run([compiler, "-shared", "-o", module, *objects], check=True)
    spec = importlib.util.spec_from_file_location("_emulated", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def plan(net: MaskedNetwork) -> _plan.NetworkPlan:
    """What a plan on a CUDA device holds, on the CPU."""
    layers = _plan.make_network_plan(net)
    return (*layers, make_walk(net, [layer.prefix for layer in layers], "cpu"))


def inverse(w: Tensor, network: MaskedNetwork, params, **options):  # type: ignore[no-untyped-def]
    """ops.autoregressive_inverse with such a plan."""
    return ops.autoregressive_inverse(w, network, params, plan=plan(network), **options)


def sample(noise: Tensor, network: MaskedNetwork, params, **options) -> Tensor:  # type: ignore[no-untyped-def]
    """ops.autoregressive_sample with such a plan."""
    return ops.autoregressive_sample(noise, network, params, plan=plan(network), **options)


@contextmanager
def in_place(emulated: ModuleType) -> Iterator[Callable[..., None]]:
    """Runs the operations on the emulated kernels; yields what chooses their tiles."""

    def forward(*given):  # type: ignore[no-untyped-def]
        outputs = _operation._forward_fake(*given)
        _autoregressive_cuda.forward(*outputs, *given)
        return outputs

    def draw(noise, *given):  # type: ignore[no-untyped-def]
        x = _sample._sample_fake(noise)
        _autoregressive_cuda.sample(x, noise.flatten(1), *given)
        return x

    both = SimpleNamespace(**{**vars(backends.compiled()), **vars(emulated)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "compiled", lambda: both)
        patch.setattr(_operation, "_call", forward)
        patch.setattr(_operation, "_call_backward", _autoregressive_cuda.backward)
        patch.setattr(_sample, "_call", draw)
        patch.setattr(_autoregressive_cuda, "_stream", lambda t: 0)
        # Triton's part on a device.
        patch.setattr(masked_linear, "backward", _linear_backward)
        yield partial(_choose, emulated)


def _choose(emulated: ModuleType, rows: int = 32, in_shared: bool = True, blocks: int = 2, order: int = 0) -> None:
    emulated.choose(rows, in_shared, blocks, order)


def _linear_backward(grad, x, weight, y, plan, activation, needs):  # type: ignore[no-untyped-def]
    assert activation == "identity" and not needs[0]
    in_order, out_order, prefix, _ = plan
    columns = torch.arange(weight.shape[1]) if in_order is None else in_order.long()
    units = torch.arange(weight.shape[0]) if out_order is None else out_order.long()
    seen = torch.zeros(weight.shape, dtype=torch.bool)
    seen[units[:, None], columns] = torch.arange(weight.shape[1]) < prefix[:, None]
    return None, torch.where(seen, grad.t() @ x, 0) if needs[1] else None, grad.sum(0) if needs[2] else None
