"""Compiles every kernel for every target, prints what came out, and holds it to the budgets."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fastgen.bench.environment import environment

from . import budget, table
from .budget import DTYPES, SHARED_MEMORY, Budget, Kernel
from .jobs import Job, all_jobs, compile_all, toolchain


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where every kernel is within its budget, 1 where one is not, 2 where there is nothing to compile with."""
    parser = _parser()
    options = parser.parse_args(arguments)
    versions, missing = toolchain()
    for line in missing:
        print(line)
    if not versions:
        return 2
    everything = all_jobs(versions)
    names = sorted({job.name for job in everything})
    for given in options.names:
        if not any(name.startswith(given) for name in names):
            parser.error(f"NAME: expected the beginning of one of {', '.join(names)}, found {given}")
    jobs = [job for job in everything if _chosen(job, options)]
    found, errors = _compile(jobs, versions, options.processes)
    table.show([kernel for kernels in found.values() for kernel in kernels])
    if options.json:
        _write_json(options.json, versions, found)
    if options.update and not errors:
        return _update(options.budgets, versions, jobs, found, whole=len(jobs) == len(everything))
    worse = errors + _compared(options.budgets, versions, jobs, found)
    for line in worse:
        print(line)
    print(f"{sum(map(len, found.values()))} kernels, {len(worse)} worse than accepted")
    return int(bool(worse))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench.static", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only what begins so, as masked_linear; all without")
    parser.add_argument("--target", action="append", choices=SHARED_MEMORY, help="only this one; may be given again")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only this one; may be given again")
    parser.add_argument("--update", action="store_true", help="accept what was compiled as the budgets")
    parser.add_argument("--budgets", type=Path, default=budget.FILE, metavar="FILE", help="the file of accepted values")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was compiled there")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many compile at the same time")
    return parser


def _chosen(job: Job, options: argparse.Namespace) -> bool:
    return (
        (not options.names or job.name.startswith(tuple(options.names)))
        and (not options.target or job.target in options.target)
        and (not options.dtype or job.dtype in (None, *options.dtype))
    )


def _compile(jobs: Sequence[Job], versions: dict[str, str], processes: int) -> tuple[dict[str, list[Kernel]], list[str]]:
    """What every compiler made, and the errors."""
    found: dict[str, list[Kernel]] = {compiler: [] for compiler in versions}
    errors = []
    for job, made in compile_all(jobs, processes):
        if isinstance(made, str):
            errors.append(made)
        else:
            found[job.compiler] += made
    return found, errors


def _compared(file: Path, versions: dict[str, str], jobs: Sequence[Job], found: dict[str, list[Kernel]]) -> list[str]:
    """What is worse than accepted; says where there is nothing to compare with."""
    budgets = budget.read(file) if file.exists() else {}
    worse = []
    for compiler, version in versions.items():
        accepted = budgets.get(compiler)
        if accepted is None or accepted.version != version:
            there = "none" if accepted is None else accepted.version
            print(f"{compiler} {version}: expected budgets of this version in {file.name}, found {there}: not compared")
            continue
        of_jobs = [kernel for kernel in accepted.kernels if any(job.makes(kernel) for job in jobs)]
        worse += budget.compare(found[compiler], of_jobs)
    return worse


def _update(file: Path, versions: dict[str, str], jobs: Sequence[Job], found: dict[str, list[Kernel]], *, whole: bool) -> int:
    """Writes the budgets; of a part of the kernels, leaves the others as they are."""
    budgets = budget.read(file) if file.exists() else {}
    for compiler, version in versions.items():
        before = budgets.get(compiler, Budget(version, ()))
        kept = [] if whole else [kernel for kernel in before.kernels if not any(job.makes(kernel) for job in jobs)]
        if kept and before.version != version:
            print(f"{compiler} {version}: expected all kernels to be updated at once, as the others are of {before.version}")
            return 1
        budgets[compiler] = Budget(version, (*kept, *found[compiler]))
    budget.write(file, budgets)
    return 0


def _write_json(file: Path, versions: dict[str, str], found: dict[str, list[Kernel]]) -> None:
    rows = [{"compiler": compiler, **asdict(kernel)} for compiler, kernels in found.items() for kernel in kernels]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"run": environment("cpu"), "compilers": versions, "kernels": rows}, indent=1) + "\n")
