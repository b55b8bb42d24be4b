"""python -m fastgen.bench.vae_table: variational autoencoders on MNIST, their posteriors and their bounds, side by side.

Each row is a config of `fastgen train` with several seeds, which rule its weights, the split, and the zeros and ones that are
drawn of the grey levels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastgen.cli.restore import restore
from fastgen.cli.results import held_out

from . import report
from .environment import environment

# Importance weights for each row.
SAMPLES = 1000


@dataclass(frozen=True)
class Model:
    """A row: the config and its settings; what the paper gives as -log p(x) or as a bound on it, in nats."""

    name: str
    what: str
    settings: tuple[str, ...] = ()
    paper: str = ""


def _planar(transforms: int) -> tuple[str, ...]:
    return "model.posterior=planar", f"model.transforms={transforms}"


MODELS = (
    Model("VAE", "vae-mnist", paper="below 89.9"),
    Model("planar, K = 2", "vae-mnist", _planar(2)),
    Model("planar, K = 16", "vae-mnist", _planar(16), paper="below 86.5 (K = 20)"),
    *(
        Model(f"IWAE, k = {k}", "iwae-mnist", (f"model.samples={k}",), paper)
        for k, paper in ((1, "86.76"), (5, "85.54"), (50, "84.78"))
    ),
)

# From the best to the worst, as the papers have them: table 2 of Rezende & Mohamed 2015, table 1 of Burda et al. 2016.
ORDERS = {
    "Rezende & Mohamed 2015": ("planar, K = 16", "planar, K = 2", "VAE"),
    "Burda et al. 2016": ("IWAE, k = 50", "IWAE, k = 5", "IWAE, k = 1"),
}


@dataclass(frozen=True)
class Result:
    """For each seed the mean over test rows, in nats: the bound that is trained, and -log p(x) by importance sampling."""

    name: str
    bound: list[float]
    estimate: list[float]
    epochs: list[int]
    seconds: float
    paper: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench.vae_table", description=__doc__.splitlines()[0])
    names = [model.name for model in MODELS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{'; '.join(names)}  [default: all]")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the files of MNIST are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="at most  [default: the config's]")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"importance weights for each row  [default: {SAMPLES}]")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs there, and go on with those that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, in place of those of the same rows")
    parser.add_argument("--render", type=Path, nargs=2, metavar=("FILE", "PAGE"), help="put results into a page, and stop")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"NAME: expected one of {'; '.join(names)}, found {unknown[0]}")
    if options.render:
        report.render(options.render[1], "vae", section(options.render[0]))
        return 0
    if options.data_dir is None:
        parser.error("--data-dir: expected the folder of MNIST's files, found none")
    for model in MODELS:
        if not options.names or model.name in options.names:
            result = measure(model, options)
            print(result, flush=True)
            if options.json:
                _write(options.json, result)
    return 0


def measure(model: Model, options: argparse.Namespace) -> Result:
    """Trains a row with every seed."""
    with tempfile.TemporaryDirectory() as folder:
        found = [_train(model, options, options.runs or Path(folder), seed) for seed in range(options.seeds)]
    bound, estimate, epochs, seconds = (list(column) for column in zip(*found, strict=True))
    return Result(model.name, bound, estimate, epochs, statistics.mean(seconds), model.paper)


def _train(model: Model, options: argparse.Namespace, runs: Path, seed: int) -> tuple[float, float, int, float]:
    """The bound and -log p(x), the epochs and the seconds that training took."""
    out = runs / re.sub(r"\W+", "-", f"{model.name} {seed}")
    command = [sys.executable, "-m", "fastgen", "train", model.what, "--data-dir", str(options.data_dir), "--out", str(out)]
    command += ["--seed", str(seed), "--threads", str(torch.get_num_threads())]
    command += ["--resume"] if (out / "run.json").exists() else []
    settings = [*model.settings, *([] if options.epochs is None else [f"training.epochs={options.epochs}"])]
    subprocess.run(
        [*command, *(part for setting in settings for part in ("--set", setting))], check=True, stdout=subprocess.DEVNULL
    )
    trained = restore(out, torch.device("cpu"))
    bound, estimate, *_ = held_out(trained.name, trained.model, trained.data(), samples=options.samples).values()
    header, *_, last = (out / "log.csv").read_text().splitlines()
    log = dict(zip(header.split(","), last.split(","), strict=True))
    return -bound.mean, -estimate.mean, int(log["epoch"]), float(log["seconds"])


def _write(path: Path, result: Result) -> None:
    """Puts a result among those in the file, in the order of MODELS."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {row["name"]: row for row in [*before, asdict(result)]}
    run = {"environment": environment("cpu"), "rows": [rows[model.name] for model in MODELS if model.name in rows]}
    path.write_text(json.dumps(run, indent=1) + "\n")


def section(path: Path) -> str:
    """What a page shows of the results in a file."""
    kept = json.loads(path.read_text())
    return "\n".join(_lines(kept["environment"], [Result(**row) for row in kept["rows"]]))


def _lines(run: dict[str, Any], results: Sequence[Result]) -> Iterator[str]:
    yield "| model | -log p(x) | spread | bound | spread | epochs | training | paper |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        values = f"{_mean_and_spread(result.estimate)} | {_mean_and_spread(result.bound)}"
        epochs = f"{statistics.mean(result.epochs):.0f}"
        yield f"| {result.name} | {values} | {epochs} | {result.seconds:.0f} s | {result.paper} |"
    yield ""
    by_name = {result.name: result for result in results}
    for paper, order in ORDERS.items():
        for better, worse in itertools.pairwise(order):
            if better in by_name and worse in by_name:
                yield _compared(paper, by_name[better], by_name[worse])
    yield ""
    yield report.measured_on(run)


def _compared(paper: str, better: Result, worse: Result) -> str:
    """What the seeds, each with the same split for both, say of two models that a paper puts in an order."""
    gains = [after - before for before, after in zip(better.estimate, worse.estimate, strict=False)]
    gain, spread = statistics.mean(gains), statistics.stdev(gains) if len(gains) > 1 else float("nan")
    same = sum(g > 0 for g in gains)
    held = "as in" if same == len(gains) else "unlike" if same == 0 else "undecided against"
    return f"- {better.name} before {worse.name} by {gain:.2f} nats (spread {spread:.2f}): {held} {paper}."


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f} | {spread}"


if __name__ == "__main__":
    sys.exit(main())
