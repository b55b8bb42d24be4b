"""python -m fastgen.bench.energies: planar flows fitted to the energies of Rezende & Mohamed 2015, as numbers and a picture.

Each fit is made several times side by side; the page gives the divergence of all of them, the picture shows the nearest.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastgen.models.energies import EDGE, ENERGIES, PlanarSampler, divergence, fit_energy, log_normaliser, square
from fastgen.train.plots import save_figure

from . import report
from .environment import environment

TRANSFORMS = (2, 8, 32)
PIXELS = 200


@dataclass(frozen=True)
class Fit:
    """KL(q || p) of every restart in nats, the standard error of each, and the parameters of the one with the least."""

    energy: str
    transforms: int
    divergence: list[float]
    standard_error: list[float]
    seconds: float
    nearest: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench.energies", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ENERGY", help=f"{', '.join(ENERGIES)}  [default: all]")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, in place of those of the same fits")
    parser.add_argument("--render", type=Path, nargs=2, metavar=("FILE", "PAGE"), help="put results into a page, and stop")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in ENERGIES]
    if unknown:
        parser.error(f"ENERGY: expected one of {', '.join(ENERGIES)}, found {unknown[0]}")
    if options.render:
        file, page = options.render
        report.render(page, "energies", section(file))
        save_figure(page.with_suffix(".png"), picture(_read(file)[1]))
        return 0
    for transforms in TRANSFORMS:
        for name in options.names or ENERGIES:
            found = fit(name, transforms, options.restarts, options.steps)
            print(name, transforms, [round(d, 4) for d in found.divergence], f"{found.seconds:.0f} s", flush=True)
            if options.json:
                _write(options.json, found)
    return 0


def fit(name: str, transforms: int, restarts: int, steps: int) -> Fit:
    start = time.perf_counter()
    sampler = fit_energy(ENERGIES[name], transforms, restarts=restarts, steps=steps)
    seconds = time.perf_counter() - start
    found, error = divergence(sampler, ENERGIES[name])
    nearest = {key: t[found.argmin()].tolist() for key, t in sampler.state_dict().items()}
    return Fit(name, transforms, found.tolist(), error.tolist(), seconds, nearest)


def _write(path: Path, found: Fit) -> None:
    """Puts a fit among those in the file, in the order of the page."""
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {(row["energy"], row["transforms"]): row for row in [*before, asdict(found)]}
    order = [(name, transforms) for name in ENERGIES for transforms in TRANSFORMS]
    run = {"environment": environment("cpu"), "rows": [rows[key] for key in order if key in rows]}
    path.write_text(json.dumps(run, indent=1) + "\n")


def _read(path: Path) -> tuple[dict[str, Any], list[Fit]]:
    kept = json.loads(path.read_text())
    return kept["environment"], [Fit(**row) for row in kept["rows"]]


def section(path: Path) -> str:
    """What a page shows of the results in a file."""
    return "\n".join(_lines(*_read(path)))


def _lines(run: dict[str, Any], fits: Sequence[Fit]) -> Iterator[str]:
    yield "| energy | log Z | planar layers | KL, nearest fit | KL, all fits | standard error | fitting |"
    yield "|---|---|---|---|---|---|---|"
    for found in fits:
        least = min(found.divergence)
        first = found.transforms == TRANSFORMS[0]
        name, constant = (found.energy, f"{log_normaliser(ENERGIES[found.energy]):.4f}") if first else ("", "")
        every = ", ".join(f"{d:.3f}" for d in sorted(found.divergence))
        error = found.standard_error[found.divergence.index(least)]
        yield f"| {name} | {constant} | {found.transforms} | {least:.3f} | {every} | {error:.3f} | {found.seconds:.0f} s |"
    yield ""
    yield report.measured_on(run)


def picture(fits: Sequence[Fit]) -> Figure:
    """A row for each energy: its density, and that of the nearest fit of every depth, on the square of the paper's figures."""
    names = list(dict.fromkeys(found.energy for found in fits))
    figure = Figure(figsize=(2.6 * (1 + len(TRANSFORMS)) + 0.2, 2.6 * len(names) + 0.4), layout="constrained")
    axes = figure.subplots(len(names), 1 + len(TRANSFORMS), squeeze=False)
    points = square(PIXELS, EDGE)
    for row, name in zip(axes, names, strict=True):
        truth = -ENERGIES[name](points) - log_normaliser(ENERGIES[name])
        shown = {f"{name}: the density": truth}
        for found in (found for found in fits if found.energy == name):
            shown[f"K = {found.transforms}, KL {min(found.divergence):.3f}"] = _log_prob(found, points)
        ceiling = math.exp(float(truth.max()))
        for ax, (title, log_density) in zip(row, shown.items(), strict=False):
            ax.set_title(title, fontsize=10)
            extent = (-EDGE, EDGE, -EDGE, EDGE)
            ax.imshow(log_density.exp().numpy(), origin="lower", extent=extent, cmap="magma", vmin=0, vmax=ceiling)
        for ax in row:
            ax.set_axis_off()
    return figure


@torch.no_grad()
def _log_prob(found: Fit, points: Tensor) -> Tensor:
    sampler = PlanarSampler(2, found.transforms, dtype=points.dtype)
    sampler.load_state_dict({key: torch.tensor([value], dtype=points.dtype) for key, value in found.nearest.items()})
    return sampler.log_prob(points.reshape(1, -1, 2)).view(points.shape[:-1])


if __name__ == "__main__":
    sys.exit(main())
