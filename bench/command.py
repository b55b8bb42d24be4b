"""The command behind `fastgen bench` and `python -m fastgen.bench`: what it takes, and what it does with it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from fastgen import backends

from . import ceilings, compare, pages, report
from .case import OURS, Setting
from .environment import environment
from .measure import measure
from .precision import DTYPES, TF32, precision
from .registry import GROUPS, MODELS, OPERATIONS, Entry, UsageError, chosen
from .rows import Row

# What keeps torch, MKL and oneDNN from AVX-512, read once when a process starts.
WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "FASTGEN_CPU_VARIANT": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


def run(arguments: Sequence[str]) -> int:
    """Carries out a command line and returns its exit code: 1 where a result of fastgen's was wrong, 0 else.

    Raises UsageError for what cannot be carried out as given.
    """
    words = list(arguments)
    if "--static" in words:
        words.remove("--static")
        from . import static  # type: ignore[attr-defined]

        return static.main(words)
    options = _parser().parse_args(words)
    try:
        if options.compare:
            found = compare.compare(*(report.read(file) for file in options.compare))
            print("\n".join(compare.lines(found)))
            return 0
        if options.render:
            return _render()
        return _measure(options)
    except UsageError:
        raise
    except (OSError, report.ResultsError) as error:
        raise UsageError(str(error)) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    operations, models = (", ".join(entry.name for entry in group) for group in (OPERATIONS, MODELS))
    parser = _Parser(
        prog="fastgen bench",
        description="Measures fastgen against plain PyTorch, its compiler and other libraries, each result checked first.",
        epilog=f"operations: {operations}. models: {models}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="operations or models, or all 'operations' or 'models'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype",
        choices=tuple(DTYPES),
        action="append",
        help="of all tensors, tf32 being float32 whose matrix products round; more than once for several  [default: float32]",
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="few sizes, little time, nothing compiled")
    effort.add_argument("--full", action="store_true", help="what takes long as well: every mode of torch.compile on CUDA")
    parser.add_argument("--threads", type=_positive, help="threads of torch and of fastgen's kernels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the results there, one line for each number")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the results there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report there that needs no network")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="take the results of that JSON file, and measure nothing"
    )
    parser.add_argument(
        "--without-avx512", action="store_true", help="also measure masked_linear with AVX-512 switched off on all sides"
    )
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="show what moved beyond the noise between two JSON files"
    )
    parser.add_argument("--render", action="store_true", help="put the committed results into README.md and docs, and stop")
    parser.add_argument("--static", action="store_true", help="tabulate what the kernels compile to; no GPU is needed")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number


def _render() -> int:
    # All of them before any is written.
    made = {page: pages.rendered(page) for page in pages.pages()}
    for page, text in made.items():
        page.write_text(text)
    return 0


def _measure(options: argparse.Namespace) -> int:
    if options.source:
        about, rows = report.read(options.source)
        report.show(rows)
        _write(options, about, rows)
        _draw(options, about, rows)
    else:
        rows = []
        for found in _tables(options):
            report.show(found)
            rows += found
            # After every table: what was measured is not lost with what comes after it.
            about = {**environment(options.device), "ceilings": ceilings.measured(options.device)}
            _write(options, about, rows)
        _draw(options, about, rows)
    wrong = [row for row in rows if row.candidate == OURS and row.note]
    for row in wrong:
        print(f"fastgen is wrong: {row.operation} {row.mode}, {row.shape}: {row.note}", file=sys.stderr)
    return 1 if wrong else 0


def _write(options: argparse.Namespace, about: dict[str, Any], rows: Sequence[Row]) -> None:
    if options.json:
        report.write(options.json, about, rows)
    if options.csv:
        report.write_csv(options.csv, about, rows)


def _draw(options: argparse.Namespace, about: dict[str, Any], rows: Sequence[Row]) -> None:
    if options.plots:
        from . import plots  # type: ignore[attr-defined]

        plots.draw(about, rows, options.plots)
    if options.html:
        from . import html  # type: ignore[attr-defined]

        html.write(options.html, about, rows)


def _tables(options: argparse.Namespace) -> Iterator[list[Row]]:
    """The rows of one entry after the other."""
    names = options.dtype or ["float32"]
    entries, asked = chosen(options.names), [name for name in options.names if name not in GROUPS]
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device: expected cpu, found cuda where torch finds no CUDA device")
    if TF32 in names and options.device != "cuda":
        raise UsageError("--dtype: expected a precision of the CPU's, found tf32, which only CUDA devices have")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda":
        ceilings.launch_latency("cuda")
    for dtype in names:
        setting = Setting(options.device, options.quick, options.full, dtype)
        for entry in _measurable(entries, asked, setting):
            yield list(measured(entry, setting))
    if options.without_avx512 and backends.cpu_variant() == "avx512":
        yield _rows_without_avx512(options.quick, torch.get_num_threads())


def _measurable(entries: Sequence[Entry], asked: Sequence[str], setting: Setting) -> list[Entry]:
    """Those that are measured there and in that precision. Raises UsageError where one that was asked for itself is not."""
    for entry in chosen(asked) if asked else ():
        for option, found, known in (("dtype", setting.dtype, entry.dtypes), ("device", setting.device, entry.devices)):
            if found not in known:
                raise UsageError(f"--{option}: expected {', '.join(known)} for {entry.name}, found {found}")
    return [entry for entry in entries if setting.dtype in entry.dtypes and setting.device in entry.devices]


def measured(entry: Entry, setting: Setting) -> Iterator[Row]:
    """The rows of an entry, the same random numbers each time."""
    torch.manual_seed(0)
    with precision(setting.dtype):
        for case in entry.cases(setting):
            yield from (replace(row, entry=entry.name) for row in measure(case, quick=setting.quick))


def _rows_without_avx512(quick: bool, threads: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "fastgen.bench", "masked_linear", "--json", str(file), "--threads", str(threads)]
        subprocess.run(command + ["--quick"] * quick, env=os.environ | WITHOUT_AVX512, check=True, stdout=subprocess.DEVNULL)
        return report.read(file)[1]
