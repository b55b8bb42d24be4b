"""python -m fastgen.bench.scaling: time and memory of a training step of every model against its sizes.

Around one middle size features, width, depth and batch each go through a range. All sizes of a range are timed in turns, so
that the machine's drift cancels in the exponents; memory is what the log-density and its gradients take beyond what they
return, in a process of its own. Before any of it the model's results are checked against the definitions, in float64.

Work: counted by walking the step, see step_count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastgen import backends

from . import report
from .case import OURS, Work, relative_error
from .environment import environment
from .estimate import Device, device_of, measured_ceilings
from .exponents import fit
from .memory import peak_bytes
from .rows import Row
from .sizes import series, shape_of
from .step_count import count_step
from .steps import training_step, value_and_gradients
from .swept_models import MODELS, Sizes
from .timing import Summary, interleave, summarise

MIDDLE = Sizes(features=64, width=128, depth=4, batch=256)
# What a quick run takes where nobody says.
ONE_OF_A_KIND = ("MAF", "IAF", "RealNVP", "RealNVP, reversible", "PlanarFlow", "VAE", "GaussianMADE")
# By whether the run is quick.
RANGES: dict[bool, dict[str, tuple[int, ...]]] = {
    True: {"features": (16, 64, 256), "width": (64, 128, 256), "depth": (2, 4, 8), "batch": (64, 256, 1024)},
    False: {
        "features": (8, 16, 32, 64, 128, 256),
        "width": (32, 64, 128, 256, 512, 1024),
        "depth": (1, 2, 4, 8, 16),
        "batch": (32, 128, 512, 2048, 8192),
    },
}
_SECONDS = {True: 0.1, False: 4.0}
_MEMORY_AXES = {True: ("depth",), False: Sizes._fields}
_CHECKED = Sizes(features=6, width=16, depth=2, batch=16)
# Relative, of float64 through a few transforms.
_AGREEMENT = 1e-9


class WrongResult(AssertionError):
    """A model that was to be timed does not compute what it should."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fastgen.bench.scaling", description="Measures cost against size.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models: {'; '.join(MODELS)}")
    parser.add_argument("--quick", action="store_true", help="one model of a kind, three sizes, memory against depth alone")
    parser.add_argument("--threads", type=int, help="threads of torch and of fastgen's kernels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MODELS]
    if unknown:
        parser.error(f"NAME: expected one of {', '.join(MODELS)}, found {unknown[0]}")
    if options.threads:
        torch.set_num_threads(options.threads)
    ceilings = measured_ceilings("cpu", torch.float32)
    device = device_of(ceilings, "float32")
    rows: list[Row] = []
    for name in options.names or (ONE_OF_A_KIND if options.quick else MODELS):
        found = list(measure(name, device, options.quick))
        _show(found)
        rows += found
        # After every model: what was measured is not lost with what comes after it.
        if options.json:
            report.write(options.json, {**environment("cpu"), "ceilings": ceilings}, rows)
    return 0


def measure(name: str, device: Device, quick: bool) -> Iterator[Row]:
    """The rows of a model. Raises WrongResult before anything is timed when its results are not what they should be."""
    error = check(name)
    for axis in MODELS[name].axes():
        swept = {size: MIDDLE._replace(**{axis: size}) for size in RANGES[quick][axis]}
        yield from _times(name, axis, swept, device, error, quick)
        if axis in _MEMORY_AXES[quick]:
            yield from _memory(name, axis, swept)


def check(name: str) -> float:
    """The relative error of the log-density and its gradients against the definitions, in float64."""
    torch.manual_seed(0)
    model, rows = MODELS[name].build(_CHECKED, dtype=torch.float64), MODELS[name].rows(_CHECKED).double()
    found = []
    for backend in ("auto", "reference"):
        torch.manual_seed(1)
        with backends.use(backend):
            found.append(value_and_gradients(list(model.parameters()), model, rows))
    error = relative_error(*found)
    if not error <= _AGREEMENT:
        raise WrongResult(f"{name}, step: relative error {error:.1e}, at most {_AGREEMENT:.1e} expected")
    return error


def _times(name: str, axis: str, swept: dict[int, Sizes], device: Device, error: float, quick: bool) -> Iterator[Row]:
    steps = {str(size): _step(name, sizes) for size, sizes in swept.items()}
    times = interleave(steps, seconds=_SECONDS[quick])
    for size, sizes in swept.items():
        milliseconds = summarise([1e3 * t for t in times[str(size)]])
        limits = _limits(name, sizes, device)
        share = limits["roof"] / milliseconds.median
        yield _row(name, "step", axis, size, "time", milliseconds, share=share, error=error, **limits)


def _step(name: str, sizes: Sizes) -> Callable[[], None]:
    model = MODELS[name].build(sizes)
    return training_step(list(model.parameters()), model, MODELS[name].rows(sizes), fused=True)


def _limits(name: str, sizes: Sizes, device: Device) -> dict[str, Any]:
    """The work of a step and the roof it stands under, as rows have them."""
    count = count_step(MODELS[name].build(sizes, device="meta"), sizes.batch, sizes.features)
    works = [*count.forward, *count.backward, count.optimizer]
    arithmetic = sum(work.flops / device.rate for work in works)
    transfer = sum(work.bytes / device.bandwidth(work.bytes) for work in works)
    return {
        **sum(works, Work(0, 0))._asdict(),
        "roof": 1e3 * device.seconds(works),
        "bound": "arithmetic" if arithmetic >= transfer else "bandwidth",
    }


def _memory(name: str, axis: str, swept: dict[int, Sizes]) -> Iterator[Row]:
    # Two processes at a time: it is not time that they measure.
    with ThreadPoolExecutor(2) as pool:
        peaks = list(pool.map(lambda sizes: peak_bytes(partial(gradients, name, sizes)), swept.values()))
    for (size, sizes), peak in zip(swept.items(), peaks, strict=True):
        returned = sum(4 * p.numel() for p in MODELS[name].build(sizes, device="meta").parameters())
        extra = max(0, peak - returned) / 2**20
        yield _row(name, "gradients", axis, size, "extra memory", Summary(extra, extra, extra))


def gradients(name: str, sizes: Sizes) -> Callable[[], object]:
    """A call of the log-density and its gradients, with something small of the same kind behind it."""
    model, rows = MODELS[name].build(sizes), MODELS[name].rows(sizes)
    value_and_gradients(list(model.parameters()), model, rows[:8])
    return partial(value_and_gradients, list(model.parameters()), model, rows)


def _row(name: str, mode: str, axis: str, size: int, quantity: str, found: Summary, **more: Any) -> Row:
    rest = ", ".join(f"{other} {getattr(MIDDLE, other)}" for other in MODELS[name].axes() if other != axis)
    where = "float32", "cpu", backends.cpu_variant() or "reference"
    return Row(name, mode, shape_of(axis, size, rest), *where, OURS, quantity, *found, **more)


def _show(rows: Sequence[Row]) -> None:
    report.show(rows)
    for key, points in series(rows).items():
        law = fit({size: row.value for size, row in points.items()})
        if law is not None:
            what = f"{key.operation} {key.mode}, {key.quantity} against {key.axis}"
            held = f"for {law.low} to {law.high}, the worst point off by {law.deviation:.0%}"
            print(f"{what}: exponent {law.exponent:.2f} ± {law.error:.2f} {held}")


if __name__ == "__main__":
    sys.exit(main())
