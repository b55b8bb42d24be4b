"""Kernels compiled for a GPU that need not be there, with the very arguments their launchers pass."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from fastgen.kernels import _layers, _parameter_gradients, _rows, _walk, gaussian_mixture_log_prob, masked_linear
from fastgen.kernels._launch import Device

_TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_OPTIONS = ("num_warps", "num_stages")
DEVICES = {
    80: Device(processors=108, shared_memory=163 * 1024),
    90: Device(processors=132, shared_memory=227 * 1024),
    100: Device(processors=148, shared_memory=227 * 1024),
}


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one launch."""

    kernel: JITFunction
    arguments: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def source(self) -> ASTSource:
        """The kernel specialised as at a launch: on None and 1, and on what 16 divides."""
        signature, constants, attributes = {}, {}, {}

        def specialised(value: Any, path: tuple[int, ...], is_constant: bool = False) -> Any:
            if isinstance(value, tuple) and not is_constant:
                return tuple(specialised(v, (*path, i)) for i, v in enumerate(value))
            if is_constant or value is None or (isinstance(value, int) and value == 1):
                constants[path] = value
                return "constexpr"
            number = value.data_ptr() if isinstance(value, Tensor) else value
            if number % 16 == 0:
                attributes[path] = [["tt.divisibility", 16]]
            return _TYPES[value.dtype] if isinstance(value, Tensor) else "i32" if number < 1 << 31 else "i64"

        for i, parameter in enumerate(self.kernel.params):
            signature[parameter.name] = specialised(self.arguments[parameter.name], (i,), parameter.is_constexpr)
        return ASTSource(self.kernel, signature, constants, attributes)

    def compile(self, target: GPUTarget) -> Compiled:
        return Compiled(triton.compile(self.source(), target=target, options=self.options))


@dataclass(frozen=True)
class Compiled:
    """A compiled kernel, and what it takes of a multiprocessor."""

    kernel: Any

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.kernel.metadata.shared

    @property
    def ptx(self) -> str:
        return self.kernel.asm["ptx"]

    def load_widths(self) -> Counter[int]:
        """How many loads from global memory there are of each width in bytes, copies to shared memory included."""
        loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.b(\d+) ", self.ptx)
        copies = re.findall(r"cp\.async\.c[ag]\.\S+ \[[^]]*\], \[[^]]*\], 0x(\w+)", self.ptx)
        return Counter([int(count or 1) * int(bits) // 8 for count, bits in loads] + [int(size, 16) for size in copies])

    def usage(self) -> dict[str, int]:
        """Registers a thread and bytes of stack and local memory, as the disassembler reports them."""
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.kernel.asm["cubin"])
            file.flush()
            command = [_cuobjdump(), "--dump-resource-usage", file.name]
            report = subprocess.run(command, capture_output=True, text=True, check=True)
        return {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", report.stdout)}


@cache
def _cuobjdump() -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def launches(call: Callable[[], object], device: Device) -> list[Launch]:
    """The launches `call` would make on `device`; nothing runs."""
    found = []

    def record(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {key: kwargs.pop(key) for key in _OPTIONS if key in kwargs}
        found.append(Launch(kernel, dict(zip(kernel.arg_names, args, strict=False)) | kwargs, options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", record)
        for module in (_layers, _parameter_gradients, _rows, _walk, gaussian_mixture_log_prob, masked_linear):
            patch.setattr(module, "device_of", lambda t: device)
        call()
    return found
