"""The sweep over sizes: models that are right, rows of the common form, and estimates beside measured points."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fastgen import flows
from fastgen.bench import report, scaling
from fastgen.bench.case import OURS, Work
from fastgen.bench.estimate import Device, device_of, estimate, measured_share
from fastgen.bench.plots import figures
from fastgen.bench.roofline import COPY, GEMM
from fastgen.bench.rows import Row
from fastgen.bench.sizes import series
from fastgen.bench.step_count import StepCount, count_step
from fastgen.bench.swept_models import MODELS

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "coupling.json"
DEVICE = Device(1e11, {1 << 20: 1e10})


@pytest.mark.parametrize("name", MODELS)
def test_models_are_right_before_they_are_timed(name: str) -> None:
    assert scaling.check(name) <= 1e-9


def test_nothing_is_timed_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "relative_error", lambda *_: 1e-3)
    monkeypatch.setattr(scaling, "interleave", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(scaling.WrongResult, match="MAF, step: relative error"):
        list(scaling.measure("MAF", DEVICE, True))


@pytest.fixture(scope="module")
def swept() -> list[Row]:
    """A sweep whose times and memory are those of exact power laws."""

    def times(calls: dict[str, Callable[[], None]], **_: Any) -> dict[str, list[float]]:
        for call in calls.values():
            call()
        return {size: [1e-3 * int(size) ** 1.5] * 3 for size in calls}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "RANGES", {True: {axis: (2, 4, 8) for axis in ("features", "width", "depth", "batch")}})
        patch.setattr(scaling, "interleave", times)
        patch.setattr(scaling, "peak_bytes", lambda make: 1 << 24)
        return [row for name in ("NICE", "PlanarFlow") for row in scaling.measure(name, DEVICE, True)]


def test_rows_are_series_that_are_drawn(swept: list[Row]) -> None:
    found = series(swept)
    axes = {name: {key.axis for key in found if key.operation == name} for name in ("NICE", "PlanarFlow")}
    assert axes == {"NICE": {"features", "width", "depth", "batch"}, "PlanarFlow": {"features", "depth", "batch"}}
    assert all(row.candidate == OURS and (row.share is None) == (row.quantity == "extra memory") for row in swept)
    assert all(row.flops and row.bytes and row.roof for row in swept if row.quantity == "time")
    assert {"time-against-size", "memory-against-depth"} <= {name for name, _ in figures({}, swept)}


def test_exponents_are_told(swept: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    scaling._show(swept)
    told = capsys.readouterr().out
    assert "NICE step, time against width: exponent 1.50 ± 0.00 for 2 to 8" in told
    assert "NICE gradients, extra memory against depth" in told


def test_the_command_keeps_what_it_measured(
    swept: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ceilings = {GEMM: {"float32": 1e11}, COPY: {"4096": 1e10}}
    monkeypatch.setattr(scaling, "measured_ceilings", lambda *_: ceilings)
    monkeypatch.setattr(scaling, "measure", lambda name, *_: (row for row in swept if row.operation == name))
    assert scaling.main(["NICE", "PlanarFlow", "--json", str(tmp_path / "rows.json")]) == 0
    run, rows = report.read(tmp_path / "rows.json")
    assert rows == swept and run["ceilings"] == ceilings and set(scaling.ONE_OF_A_KIND) < set(MODELS)


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["MAV"])
    assert "expected one of MAF" in capsys.readouterr().err


def test_memory_is_that_of_the_call() -> None:
    sizes = scaling.MIDDLE._replace(batch=8, width=16)
    value, *grads = scaling.gradients("NICE", sizes)()  # type: ignore[misc]
    assert value.shape == (8,) and len(grads) == len(list(MODELS["NICE"].build(sizes).parameters()))


# Measured points: the stacks of couplings of the committed run, 1024 rows of 64 features, hidden 256 x 2.
BATCH, FEATURES, HIDDEN = 1024, 64, (256, 256)
STACKS = {OURS: True, "nothing rebuilt": False}


@cache
def stack(depth: int, reversible: bool) -> StepCount:
    flow = flows.RealNVP(FEATURES, transforms=depth, hidden_features=HIDDEN, reversible=reversible, device="meta")
    return count_step(flow, BATCH, FEATURES)


def measured(quantity: str, candidate: str, depth: int) -> float:
    _, rows = report.read(RESULTS)
    fitting = (r for r in rows if (r.operation, r.quantity, r.candidate) == ("reversible", quantity, candidate))
    return next(row.value for row in fitting if f" {depth} x hidden" in row.shape)


@pytest.mark.parametrize("candidate", STACKS)
@pytest.mark.parametrize("depth", [4, 16])
def test_memory_is_near_what_was_measured(candidate: str, depth: int) -> None:
    count = stack(depth, STACKS[candidate])
    found = measured("extra memory", candidate, depth)
    # A process also takes pages for Python's objects and the threads' scratch, which grow a little with the depth.
    assert 0.97 * found - 2.0 - 0.05 * depth < (count.peak - count.parameters) / 2**20 < found


@pytest.mark.parametrize("candidate", STACKS)
def test_time_is_near_what_was_measured(candidate: str) -> None:
    device = Device(rate=3e11, bandwidths={1 << 24: 24e9})

    def seconds(depth: int, reversible: bool) -> float:
        return estimate(stack(depth, reversible), BATCH, FEATURES, device).compute

    # What share of the roof steps reach is known from one of them, of 8 couplings with nothing rebuilt.
    share = 1e3 * seconds(8, False) / measured("time", "nothing rebuilt", 8)
    assert 1e3 * seconds(16, STACKS[candidate]) / share == pytest.approx(measured("time", candidate, 16), rel=0.15)


COUNT = StepCount(parameters=4000, saved=1000, peak=5500, forward=[Work(2e6, 1e3)], backward=[Work(0, 5e6)])


def test_an_estimate_adds_up() -> None:
    device = Device(rate=1e9, bandwidths={1000: 1e9, 1_000_000: 1e10}, share=0.5)
    found = estimate(COUNT, 10, 5, device, gpus=4, link=1e6, itemsize=2)
    assert found.parameters == found.gradients == found.buckets == 2000 and found.optimizer == 4000
    assert (found.rows, found.saved, found.workspace) == (100, 500, 250)
    assert found.peak == 2000 + 2000 + 4000 + 100 + 2750
    # The forward pass is limited by arithmetic, the others by bytes, half as many as in float32.
    assert found.forward == pytest.approx(2e-3 / 0.5) and found.backward == pytest.approx(2.5e6 / 1e10 / 0.5)
    assert found.update == pytest.approx(14_000 / 1e9 / 0.5)
    assert found.all_reduce == pytest.approx(2 * 3 / 4 * 2000 / 1e6)
    hidden, exposed = found.step
    assert exposed == pytest.approx(found.compute + found.all_reduce)
    assert hidden == pytest.approx(found.forward + found.all_reduce + found.update)


def test_one_gpu_sends_nothing() -> None:
    found = estimate(COUNT, 10, 5, DEVICE)
    assert found.all_reduce == found.buckets == 0 and found.step == (found.compute, found.compute)


def test_the_share_is_that_of_the_nearest_step_of_the_model() -> None:
    def row(operation: str, roof: float, share: float, mode: str = "step") -> Row:
        return Row(operation, mode, "", "float32", "cpu", "", OURS, "time", 1, 1, 1, roof=roof, share=share)

    rows = [row("MAF", 1.0, 0.1), row("MAF", 100.0, 0.5), row("NICE", 10.0, 0.3), row("MAF", 10.0, 0.9, "forward")]
    assert measured_share(rows, "MAF", 30.0)[0] == 0.5 and measured_share(rows, "MAF", 3.0)[0] == 0.1
    assert measured_share(rows, "VAE", 9.0)[0] == 0.3
    with pytest.raises(ValueError, match="expected rows of training steps"):
        measured_share(rows[3:], "MAF", 1.0)


def test_a_run_without_ceilings_of_the_precision_is_refused() -> None:
    ceilings = {"gemm, FLOP/s": {"float32": 1e9}, "copy, bytes/s": {"4096": 1e9}}
    assert device_of(ceilings, "float32").bandwidth(10) == 1e9
    with pytest.raises(ValueError, match="expected ceilings of bfloat16, found float32"):
        device_of(ceilings, "bfloat16")
    with pytest.raises(ValueError, match="found none"):
        device_of({}, str(torch.float32))
