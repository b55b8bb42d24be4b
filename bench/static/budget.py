"""What is accepted of the machine code of every kernel, and when a change is for the worse.

The rule, of a kernel at a target in a dtype. It is for the worse
- when it does not fit: more shared memory than the device has;
- when it accesses local memory more often than accepted, which is not at all for nearly all;
- when its registers leave a multiprocessor fewer warps than those accepted;
- when it takes more shared memory;
- when its loads or its stores move less by a tenth, in bytes an instruction on average;
- when a kind of matrix instruction is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .machine_code import MachineCode

FILE = Path(__file__).parents[1] / "budgets.json"
_NARROWER = 0.9
# What a call computes in. tf32: float32 tensors, whose matrix products may round their factors.
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
# Bytes a block can have, of every target.
SHARED_MEMORY = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}


@dataclass(frozen=True)
class Kernel:
    """A kernel's name, `call: kernel`, where it is to run, what it computes in, and its machine code."""

    name: str
    target: str
    dtype: str
    code: MachineCode

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.target, self.dtype

    @property
    def call(self) -> str:
        return self.name.split(": ")[0]

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype}, {self.target}"


@dataclass(frozen=True)
class Budget:
    """What one compiler made of its kernels, and its version."""

    version: str
    kernels: tuple[Kernel, ...]


def resident_warps(target: str, registers: int) -> int:
    """How many warps a multiprocessor's registers are enough for (NVIDIA), how many waves those of a SIMD unit (AMD)."""
    allocated = max(-(-registers // 8) * 8, 8)
    return min(512 // allocated, 8) if target.startswith("gfx") else min(65536 // (32 * allocated), 64)


def mean_width(accesses: dict[int, int]) -> float:
    """Bytes an access."""
    return sum(width * n for width, n in accesses.items()) / max(sum(accesses.values()), 1)


def faults(kernel: Kernel, accepted: MachineCode | None) -> list[str]:
    """What is worse than accepted, a line each, by the rule above."""
    if accepted is None:
        return [f"{kernel}: expected a budget, found none"]
    code, room = kernel.code, SHARED_MEMORY[kernel.target]
    warps, accepted_warps = (resident_warps(kernel.target, c.registers) for c in (code, accepted))
    lost = accepted.matrix.keys() - code.matrix.keys()
    checks = (
        (code.shared > room, f"at most the {room} bytes of shared memory of the device, found {code.shared}"),
        (code.spills > accepted.spills, f"at most {accepted.spills} spills, found {code.spills}"),
        (
            warps < accepted_warps,
            f"room for {accepted_warps} warps of {accepted.registers} registers, found {warps} of {code.registers}",
        ),
        (code.shared > accepted.shared, f"at most {accepted.shared} bytes of shared memory, found {code.shared}"),
        (_narrower(code.loads, accepted.loads), f"loads by bytes as {accepted.loads}, found {code.loads}"),
        (_narrower(code.stores, accepted.stores), f"stores by bytes as {accepted.stores}, found {code.stores}"),
        (bool(lost), f"matrix instructions {', '.join(accepted.matrix)}, found {', '.join(code.matrix) or 'none'}"),
    )
    return [f"{kernel}: expected {what}" for worse, what in checks if worse]


def _narrower(found: dict[int, int], accepted: dict[int, int]) -> bool:
    return mean_width(found) < _NARROWER * mean_width(accepted)


def compare(found: Iterable[Kernel], accepted: Iterable[Kernel]) -> list[str]:
    """The faults of all that was compiled, and the budgets, of the same calls, that no kernel has any more."""
    budgets = {kernel.key: kernel for kernel in accepted}
    lines = []
    for kernel in found:
        own = budgets.pop(kernel.key, None)
        lines += faults(kernel, own.code if own else None)
    return lines + [f"{kernel}: expected a kernel, as there is a budget, found none" for kernel in budgets.values()]


def read(file: Path) -> dict[str, Budget]:
    """The budgets by compiler. Raises ValueError for anything else."""
    try:
        content = json.loads(file.read_text())
        return {
            compiler: Budget(group["version"], tuple(_kernel(**row) for row in group["kernels"]))
            for compiler, group in content.items()
        }
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected budgets by compiler, with a version and kernels, found: {error}") from error


def _kernel(name: str, target: str, dtype: str, loads: dict, stores: dict, **others: Any) -> Kernel:
    loads, stores = ({int(width): n for width, n in accesses.items()} for accesses in (loads, stores))
    return Kernel(name, target, dtype, MachineCode(loads=loads, stores=stores, **others))


def write(file: Path, budgets: dict[str, Budget]) -> None:
    """A line for each kernel, so that a change shows as one."""
    groups = []
    for compiler, budget in sorted(budgets.items()):
        rows = ",\n".join(f"  {json.dumps(_row(kernel))}" for kernel in sorted(budget.kernels, key=lambda k: k.key))
        groups.append(f'"{compiler}": {{"version": "{budget.version}", "kernels": [\n{rows}\n]}}')
    file.write_text("{{\n{}\n}}\n".format(",\n".join(groups)))


def _row(kernel: Kernel) -> dict[str, Any]:
    return {"name": kernel.name, "target": kernel.target, "dtype": kernel.dtype, **asdict(kernel.code)}
