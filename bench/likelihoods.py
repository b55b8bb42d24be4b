"""python -m fastgen.bench.likelihoods: what the models are worth on held-out rows, as `fastgen train` trains them.

Each row of the table is a model trained with several seeds, which rule its weights, the split and the order of the rows.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from fastgen.cli.results import result_json
from fastgen.data import load
from fastgen.flows import Composed
from fastgen.train import LogLikelihood
from fastgen.train.baselines import RIDGE, Gaussian, baselines
from fastgen.train.models import preprocessing

from . import report
from .environment import environment

MASKS = ("model.masks=32", "model.order=random", "model.hidden_degrees=random")


@dataclass(frozen=True)
class Trained:
    """A row: what is trained on which data, and the command's settings for it.

    data: a set that comes with fastgen, or the name of a file.
    what: a model, or a config that comes with fastgen; None for a Gaussian behind the preprocessing that models have.
    paper: the log-likelihood per row that the paper of the model gives, where the data is the paper's.
    seeds: how many at most, where training takes long.
    """

    data: str
    name: str
    what: str | None
    settings: tuple[str, ...] = ()
    paper: float | None = None
    seeds: int | None = None


# The order of table 1 in Papamakarios et al. 2017, then flows of couplings; the last four as in table 3 and 4 of Germain et al.
# 2015.
ROWS = (
    *(
        row
        for data in ("digits", "patches")
        for row in (
            Trained(data, "MADE", "gaussian-made"),
            Trained(data, "MADE MoG", "mixture-made"),
            Trained(data, "MAF (5)", "maf"),
            Trained(data, "MAF MoG (5)", "maf-mog"),
        )
    ),
    Trained("digits", "Gaussian behind the logit", None),
    Trained("digits", "NICE", "nice"),
    Trained("digits", "RealNVP", "realnvp"),
    Trained("mnist", "Gaussian behind the logit", None, seeds=1),
    Trained("mnist", "NICE", "nice", seeds=1),
    Trained("mnist", "RealNVP", "realnvp", seeds=1),
    Trained("mushrooms.npz", "MADE, 1 mask", "mushrooms", paper=-9.68),
    Trained("mushrooms.npz", "MADE, 32 masks", "mushrooms", MASKS),
    Trained("nips.npz", "MADE, 1 mask", "nips", paper=-280.25),
    # The masks themselves keep the network from learning the rows by heart: it needs less decay, and no average.
    Trained("nips.npz", "MADE, 32 masks", "nips", (*MASKS, "training.weight_decay=1.0", "training.ema=none")),
)
BASELINE = dict.fromkeys(("digits", "patches", "mnist"), "full-covariance Gaussian")
INDEPENDENT = "independent features"


@dataclass(frozen=True)
class Result:
    """The log-likelihoods of a row's test rows in nats per row, one per seed, and those of the baseline beside it.

    bits_per_dim, baseline_bits: of images, the same of both.
    """

    data: str
    name: str
    nats: list[float]
    baseline: list[float]
    bits_per_dim: list[float]
    standard_error: float
    seconds: float
    paper: float | None = None
    baseline_bits: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench.likelihoods", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets, or models by their names here  [default: all]")
    parser.add_argument("--files", type=Path, default=Path("."), metavar="DIR", help="where the files of the data are")
    parser.add_argument("--mnist", type=Path, default=Path("."), metavar="DIR", help="where the files of MNIST are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the runs there, and go on with those that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, in place of those of the same rows")
    parser.add_argument("--render", type=Path, nargs=2, metavar=("FILE", "PAGE"), help="put results into a page, and stop")
    options = parser.parse_args(arguments)
    if options.render:
        report.render(options.render[1], "likelihoods", section(options.render[0]))
        return 0
    for row in ROWS:
        if not options.names or {Path(row.data).stem, row.name} & set(options.names):
            result = measure(row, options)
            print(result, flush=True)
            if options.json:
                write(options.json, asdict(result))
    return 0


def write(path: Path, result: dict) -> None:
    """Puts a result among those in the file, in the order of ROWS."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {(row["data"], row["name"]): row for row in [*before, result]}
    order = [(Path(row.data).stem, row.name) for row in ROWS]
    run = {"environment": environment("cpu"), "rows": [rows[key] for key in order if key in rows]}
    path.write_text(json.dumps(run, indent=1) + "\n")


def measure(row: Trained, options: argparse.Namespace) -> Result:
    """Trains a row with every seed."""
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder)
        worth = _train if row.what else _fit
        found = [worth(row, options, runs, seed) for seed in range(min(options.seeds, row.seeds or options.seeds))]
    baseline = BASELINE.get(row.data, INDEPENDENT)
    ours = [next(name for name in result["nats_per_row"] if name not in (baseline, "diagonal Gaussian")) for result in found]
    pairs = list(zip(found, ours, strict=True))
    return Result(
        data=Path(row.data).stem,
        name=row.name,
        nats=[result["nats_per_row"][name] for result, name in pairs],
        baseline=[result["nats_per_row"][baseline] for result in found],
        bits_per_dim=_known(result["bits_per_dim"][name] for result, name in pairs),
        standard_error=statistics.mean(result["standard_error"][name] for result, name in pairs),
        seconds=statistics.mean(result["seconds"] for result in found),
        paper=row.paper,
        baseline_bits=_known(result["bits_per_dim"][baseline] for result in found),
    )


def _known(bits: Iterable[float | None]) -> list[float]:
    return [value for value in bits if value is not None]


def _train(row: Trained, options: argparse.Namespace, runs: Path, seed: int) -> dict:
    assert row.what is not None
    out = runs / re.sub(r"\W+", "-", f"{row.data} {row.name} {seed}")
    data = str(options.files / row.data) if Path(row.data).suffix else row.data
    command = [sys.executable, "-m", "fastgen", "train", row.what, "--data", data, "--seed", str(seed), "--out", str(out)]
    command += ["--data-dir", str(options.mnist)] if row.data == "mnist" else []
    command += ["--resume"] if (out / "run.json").exists() else []
    settings = [part for setting in row.settings for part in ("--set", setting)]
    subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
    header, *_, last = (out / "log.csv").read_text().splitlines()
    seconds = float(dict(zip(header.split(","), last.split(","), strict=True))["seconds"])
    return {**json.loads((out / "result.json").read_text()), "seconds": seconds}


def _fit(row: Trained, options: argparse.Namespace, runs: Path, seed: int) -> dict:
    """A full-covariance Gaussian of what the models' preprocessing makes of the rows: a flow without networks."""
    begun = time.perf_counter()
    data = load(row.data, seed=seed, **({"dir": options.mnist} if row.data == "mnist" else {}))
    transform = Composed(preprocessing(data))
    z, _ = transform(torch.from_numpy(np.concatenate([window.read().rows for window in data.epoch(1, len(data.train), 0)])))
    rows = z.double().numpy()
    fitted = Gaussian(rows.mean(axis=0), np.cov(rows.T, bias=True) + RIDGE * np.eye(data.features))
    held_out = [transform(torch.from_numpy(part.rows)) for part in data.held_out("test")]
    nats = np.concatenate([fitted.log_prob(z.numpy()) + log_det.double().numpy() for z, log_det in held_out])
    simple = baselines(data).items()
    raw = {name: np.concatenate([b.log_prob(part.rows) for part in data.held_out("test")]) for name, b in simple}
    found = {row.name: LogLikelihood(nats), **{name: LogLikelihood(values) for name, values in raw.items()}}
    return {**result_json(data, found), "seconds": time.perf_counter() - begun}


def section(path: Path) -> str:
    """What a page shows of the results in a file."""
    kept = json.loads(path.read_text())
    return markdown(kept["environment"], [Result(**row) for row in kept["rows"]])


def markdown(run: dict, results: Sequence[Result]) -> str:
    return "\n".join(_lines(run, results))


def _lines(run: dict, results: Sequence[Result]) -> Iterator[str]:
    yield "| data | model | nats per row | spread | bits per dim | paper | training |"
    yield "|---|---|---|---|---|---|---|"
    for data in dict.fromkeys(result.data for result in results):
        rows = [result for result in results if result.data == data]
        name = BASELINE.get(data, INDEPENDENT)
        bits = _bits(next((row.baseline_bits for row in rows if row.baseline_bits), []))
        yield f"| {data} | {name} | {statistics.mean(rows[0].baseline):.2f} | {_spread(rows[0].baseline)} | {bits} | | |"
        for row in rows:
            paper = "" if row.paper is None else f"{row.paper}"
            nats = f"{statistics.mean(row.nats):.2f} | {_spread(row.nats)}"
            yield f"| | {row.name} | {nats} | {_bits(row.bits_per_dim)} | {paper} | {row.seconds:.0f} s |"
    yield ""
    yield report.measured_on(run)


def _bits(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" if values else ""


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""


if __name__ == "__main__":
    sys.exit(main())
