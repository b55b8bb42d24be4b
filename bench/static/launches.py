"""Triton kernels compiled for a GPU that need not be there, with the very arguments their launchers pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from fastgen.kernels import _launch
from fastgen.kernels._launch import Device

from .budget import SHARED_MEMORY
from .machine_code import MachineCode, of_amdgcn, of_cubin

_TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_OPTIONS = ("num_warps", "num_stages")


@dataclass(frozen=True)
class Target:
    """What to compile for, and the device whose launches are compiled."""

    compiler: GPUTarget
    device: Device


# An A100, H100 (H200), B200 and MI300X.
TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), Device(108, SHARED_MEMORY["sm_80"])),
    "sm_90": Target(GPUTarget("cuda", 90, 32), Device(132, SHARED_MEMORY["sm_90"])),
    "sm_100": Target(GPUTarget("cuda", 100, 32), Device(148, SHARED_MEMORY["sm_100"])),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), Device(304, SHARED_MEMORY["gfx942"])),
}


@dataclass(frozen=True)
class Launch:
    """A kernel with the arguments of one launch."""

    kernel: JITFunction
    arguments: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        """The kernel's name, bare: `forward` of `_forward_kernel`."""
        return self.kernel.__name__.removeprefix("_").removesuffix("_kernel")

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

    def compile(self, target: Target) -> MachineCode:
        compiled = triton.compile(self.source(), target=target.compiler, options=self.options)
        if target.compiler.backend == "hip":
            code = of_amdgcn(compiled.asm["amdgcn"])
        else:
            (code,) = of_cubin(compiled.asm["cubin"]).values()
        # Triton asks for shared memory at the launch.
        return replace(code, shared=compiled.metadata.shared)


def launches(call: Callable[[], object], device: Device) -> list[Launch]:
    """The launches `call`, on CPU tensors, would make on `device`; nothing runs."""
    found = []

    def record(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {key: kwargs.pop(key) for key in _OPTIONS if key in kwargs}
        found.append(Launch(kernel, dict(zip(kernel.arg_names, args, strict=False)) | kwargs, options))

    with patch.object(JITFunction, "run", record), patch.object(_launch, "_INTERPRETER", device):
        call()
    return found
