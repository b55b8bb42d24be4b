"""python -m fastgen.bench: measures, prints a table, and keeps the results."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from fastgen import backends

from . import report
from .case import Setting
from .environment import environment
from .measure import Row, measure

NAMES = (
    "masked_linear",
    "masked_mlp",
    "affine_autoregressive",
    "coupling",
    "gaussian_log_prob",
    "gaussian_mixture_log_prob",
    "gaussian_rsample_kl",
    "likelihoods",
    "autoregressive_inverse",
    "autoregressive_sample",
    "planar",
    "radial",
    "models",
    "coupling_flows",
    "reversible",
    "sampling",
    "training",
    "accelerate",
)

# What is more than one operation.
WHOLE = ("models", "coupling_flows", "reversible", "sampling", "training", "accelerate")

# What keeps torch, MKL and oneDNN from AVX-512, read once when a process starts.
WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "FASTGEN_CPU_VARIANT": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"NAME: expected one of {', '.join(NAMES)}, found {unknown[0]}")
    if options.render:
        run, rows = report.read(options.render[0])
        chosen = [row for row in rows if (row.operation if row.operation in NAMES else "models") in (options.names or NAMES)]
        report.render(options.render[1], "benchmarks", report.markdown(run, chosen))
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected cpu, found cuda where torch finds no CUDA device")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for name in options.names or NAMES:
        found = list(_rows(name, Setting(options.device, options.quick)))
        report.show(found)
        rows += found
    if options.without_avx512 and backends.cpu_variant() == "avx512":
        found = _rows_without_avx512(options.quick, torch.get_num_threads())
        report.show(found)
        rows += found
    if options.json:
        report.write(options.json, environment(options.device), rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench", description="Measures fastgen against plain PyTorch.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="few sizes, little time")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch and of fastgen's kernels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--without-avx512", action="store_true", help="also measure masked_linear with AVX-512 switched off on all sides"
    )
    parser.add_argument(
        "--render", type=Path, nargs=2, metavar=("FILE", "PAGE"), help="put a file of results into a Markdown page, and stop"
    )
    return parser


def _rows(name: str, setting: Setting) -> Iterator[Row]:
    module = importlib.import_module(f"fastgen.bench.{name}" if name in WHOLE else f"fastgen.bench.ops.{name}")
    for case in module.cases(setting):
        yield from measure(case, quick=setting.quick)


def _rows_without_avx512(quick: bool, threads: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "fastgen.bench", "masked_linear", "--json", str(file), "--threads", str(threads)]
        subprocess.run(command + ["--quick"] * quick, env=os.environ | WITHOUT_AVX512, check=True, stdout=subprocess.DEVNULL)
        return report.read(file)[1]


if __name__ == "__main__":
    sys.exit(main())
