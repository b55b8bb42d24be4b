"""Machine code read back: registers, spills, memory, the width of loads and stores, matrix instructions."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What NVIDIA's loads and stores of global memory say of their width, in bytes; of four where they say nothing.
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_SASS_ACCESS = re.compile(r"\b(LDG|LDGSTS|LD|STG|ST)\.E((?:\.\w+)*)")
_SASS_LOCAL = re.compile(r"\b(?:LDL|STL)\b")
_SASS_MATRIX = re.compile(r"\s((?:UTC)?[A-Z]{1,2}MMA)\b")

_AMD_WIDTHS = {"byte": 1, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
_AMD_ACCESS = re.compile(r"\b(?:global|buffer|flat)_(load|store)_(?:lds_)?[us]?(byte|short|dword(?:x[234])?)")
# Scalar registers are spilled to vector registers, which costs no memory.
_AMD_FIELDS = {
    "registers": "vgpr_count",
    "spills": "vgpr_spill_count",
    "stack": "private_segment_fixed_size",
    "shared": "group_segment_fixed_size",
}


@dataclass(frozen=True)
class MachineCode:
    """One compiled kernel.

    registers: of a thread.
    spills: instructions that read or write local memory on NVIDIA, vector registers that are spilled on AMD.
    stack, shared: bytes a thread, and bytes of shared memory a block.
    loads, stores: how many instructions move so many bytes from and to global memory, copies to shared memory included.
    matrix: how many matrix instructions there are, by name.
    """

    registers: int
    spills: int
    stack: int
    shared: int
    loads: dict[int, int]
    stores: dict[int, int]
    matrix: dict[str, int]


def of_cubin(cubin: bytes) -> dict[str, MachineCode]:
    """The kernels of a file of NVIDIA machine code, by their names in it. Shared memory given at a launch is not known here."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return of_listing(_run(cuobjdump(), "--dump-resource-usage", "-sass", file.name))


def of_listing(listing: str) -> dict[str, MachineCode]:
    """The same of what cuobjdump prints."""
    usage = {
        name: {key: int(value) for key, value in re.findall(r"\b([A-Z]+):(\d+)", numbers)}
        for name, numbers in re.findall(r"^ Function (\S+):\n(.*)$", listing, re.MULTILINE)
    }
    code = dict(part.split("\n", 1) for part in listing.split("\t\tFunction : ")[1:])
    return {name: _of_sass(numbers, code[name]) for name, numbers in usage.items()}


def _of_sass(usage: dict[str, int], sass: str) -> MachineCode:
    loads: Counter[int] = Counter()
    stores: Counter[int] = Counter()
    for operation, modifiers in _SASS_ACCESS.findall(sass):
        width = next((_WIDTHS[m] for m in modifiers.split(".") if m in _WIDTHS), 4)
        (loads if operation.startswith("LD") else stores)[width] += 1
    return MachineCode(
        registers=usage["REG"],
        spills=len(_SASS_LOCAL.findall(sass)),
        stack=usage["STACK"],
        shared=usage["SHARED"],
        loads=dict(sorted(loads.items())),
        stores=dict(sorted(stores.items())),
        matrix=dict(Counter(_SASS_MATRIX.findall(sass))),
    )


def of_amdgcn(assembly: str) -> MachineCode:
    """The one kernel of AMD assembly text."""
    fields = dict(re.findall(r"^\s+(?:- )?\.(\w+):\s+(\d+)$", assembly, re.MULTILINE))
    accesses = _AMD_ACCESS.findall(assembly)

    def widths(of: str) -> dict[int, int]:
        return dict(sorted(Counter(_AMD_WIDTHS[size] for operation, size in accesses if operation == of).items()))

    numbers = {name: int(fields[key]) for name, key in _AMD_FIELDS.items()}
    matrix = len(re.findall(r"\bv_mfma_", assembly))
    return MachineCode(**numbers, loads=widths("load"), stores=widths("store"), matrix={"v_mfma": matrix} if matrix else {})


@cache
def cuobjdump() -> str | None:
    """The program that reads NVIDIA machine code: Triton's own, or that of the toolkit; None where there is neither."""
    return next(_found("cuobjdump"), None)


def _found(tool: str) -> Iterator[str]:
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        own = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / tool
        if own.exists():
            yield str(own)
    on_path = shutil.which(tool)
    if on_path is not None:
        yield on_path


def _run(tool: str | None, *arguments: str) -> str:
    if tool is None:
        raise FileNotFoundError("cuobjdump: expected with Triton or on the path, found in neither")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout
