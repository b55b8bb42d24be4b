"""`fastgen doctor`: what is installed here, and what will compute each operation."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .. import __version__, backends

_COLUMNS = (
    ("cpu", torch.float32),
    ("cpu", torch.float64),
    ("cpu", torch.bfloat16),
    ("cuda", torch.float32),
    ("cuda", torch.bfloat16),
)


def doctor() -> None:
    """Show versions, CPU and GPU features, and which implementation each operation runs on and why."""
    console = Console()
    console.print(_facts())
    table, reasons = _operations()
    console.print(table)
    for reason in reasons:
        console.print(reason, highlight=False, soft_wrap=True, markup=False)


def _facts() -> Table:
    table = Table(title="this machine", show_header=False, title_justify="left")
    for name, value in (*_software(), *_cpu(), *_gpus()):
        table.add_row(name, value)
    return table


def _software() -> Iterator[tuple[str, str]]:
    yield "fastgen", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", torch.__version__
    for package in ("triton", "numpy"):
        yield package, _version(package)
    try:
        compiled = backends.compiled()
        yield "compiled module", "built " + ("with CUDA" if compiled.with_cuda else "without CUDA")
    except backends.BackendError as error:
        yield "compiled module", str(error)
    yield "backend in force", f"{backends.forced()} (FASTGEN_BACKEND {os.environ.get('FASTGEN_BACKEND', 'not set')})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> Iterator[tuple[str, str]]:
    yield (
        "CPU instructions",
        f"fastgen {backends.cpu_variant() or 'not built'}, torch {torch.backends.cpu.get_cpu_capability()}",
    )
    yield "CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"


def _gpus() -> Iterator[tuple[str, str]]:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        yield "GPU", "none found" if built else "none: this torch is built without CUDA"
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        capability = f"compute capability {device.major}.{device.minor}"
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield f"GPU {index}", f"{device.name}, {capability}, {device.multi_processor_count} multiprocessors, {memory}"


def _operations() -> tuple[Table, list[str]]:
    """The table of operations and implementations, and the reason behind every entry, each once."""
    table = Table(title="what computes each operation", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("operation", no_wrap=True)
    for device, dtype in _COLUMNS:
        table.add_column(f"{device}\n{_short(dtype)}")
    reasons: dict[str, list[str]] = {}
    for op in backends.OPERATIONS:
        cells = []
        for device, dtype in _COLUMNS:
            backend, reason = _choice(op, device, dtype)
            cells.append(backend)
            places = reasons.setdefault(f"{backend}: {reason}", [])
            if (place := f"{device} {_short(dtype)}") not in places:
                places.append(place)
        table.add_row(op, *cells)
    return table, [f"{', '.join(places)}: {reason}" for reason, places in reasons.items()]


def _choice(op: str, device: str, dtype: torch.dtype) -> tuple[str, str]:
    try:
        return backends.choose_for(op, device, dtype)
    except backends.BackendError as error:
        return "raises", str(error)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
