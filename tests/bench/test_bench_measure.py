"""From cases to rows: what is checked, timed and counted."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable

import pytest
import torch

from fastgen import backends
from fastgen.bench import measure as measuring
from fastgen.bench.case import OURS, Case, MemoryCase, Work, relative_error
from fastgen.bench.measure import measure
from fastgen.bench.memory import peak_bytes_here

MIB = 2**20


def a_case(errors: tuple[float, float] = (0.0, 0.0), call: Callable[[], object] = lambda: None, device: str = "cpu") -> Case:
    ours, dense = errors
    checks = {OURS: lambda: ours, "dense": lambda: dense}
    targets = {"dense": 1e6}
    work = Work(flops=200, bytes=1)
    return Case("an operation", "forward", "2 x 3", {OURS: call, "dense": call}, checks, work, targets, device=device)


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_nothing_is_timed_where_fastgen_is_wrong(error: float) -> None:
    def call() -> None:
        raise AssertionError("timed")

    [row] = measure(a_case((error, 0.0), call))
    assert row.candidate == OURS and row.note.startswith("results differ: relative error")
    assert math.isnan(row.value) and row.ratio is None and row.share is None


def test_a_candidate_that_is_wrong_gets_no_time(quickly: None) -> None:
    calls = []
    case = a_case((1e-7, 1e-3))
    case = dataclasses.replace(case, candidates={OURS: lambda: None, "dense": lambda: calls.append(1)})
    ours, dense = measure(case, quick=True)
    assert ours.value > 0 and ours.error == 1e-7
    assert not calls and math.isnan(dense.value) and dense.error == 1e-3 and dense.reached is None
    assert dense.note == "results differ: relative error 1.0e-03, at most 7.6e-06 expected"


def test_a_candidate_that_fails_is_reported(quickly: None) -> None:
    def fails() -> float:
        raise RuntimeError("out of luck\nand more")

    def does_not_compile() -> float:
        return torch.compile(lambda x: x.sum().item() > 0 and torch._dynamo.graph_break(), fullgraph=True)(torch.ones(1))

    case = dataclasses.replace(a_case(), errors={OURS: lambda: 0.0, "dense": fails})
    assert [row.note for row in measure(case, quick=True)] == ["", "fails: out of luck"]
    case = dataclasses.replace(a_case(), errors={OURS: lambda: 0.0, "dense": does_not_compile})
    assert list(measure(case, quick=True))[1].note.startswith("does not compile: ")


def test_rows_of_a_case(quickly: None) -> None:
    ours, dense = measure(a_case((1e-7, 1e-7)), quick=True)
    assert (ours.candidate, ours.ratio, ours.target, ours.reached, ours.error) == (OURS, None, None, None, 1e-7)
    assert dense.candidate == "dense" and dense.target == 1e6 and dense.reached is False and dense.error == 1e-7
    assert dense.ratio_low <= dense.ratio <= dense.ratio_high  # type: ignore[operator]
    assert ours.roof == dense.roof and ours.share == pytest.approx(ours.roof / ours.value)  # type: ignore[operator]
    assert ours.bound == "arithmetic" and ours.timer == "loop"


def test_what_is_faster_than_the_machine_gets_no_time(monkeypatch: pytest.MonkeyPatch, quickly: None) -> None:
    # A candidate that remembers its last result, beside work of 2 ms at the least.
    monkeypatch.setattr(measuring.ceilings, "gemm_rate", lambda *_: 1e9)
    work = Work(flops=2e6, bytes=1)
    case = dataclasses.replace(a_case(), work=work, candidates={OURS: lambda: time.sleep(2e-3), "dense": lambda: None})
    ours, dense = measure(case, quick=True)
    assert ours.value >= 2 and math.isnan(dense.value) and "times the roof: what is timed is not" in dense.note
    case = dataclasses.replace(case, candidates={OURS: lambda: None, "dense": lambda: None})
    [ours] = measure(case, quick=True)
    assert "times the roof" in ours.note


def test_short_kernels_of_a_gpu_are_timed_as_graphs_beside_their_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for what takes a device."""
    calls, graphs = ({OURS: [2e-5 * k] * 4, "dense": [4e-5 * k] * 4} for k in (1, 0.25))
    monkeypatch.setattr(measuring, "interleave", lambda candidates, **_: calls)
    monkeypatch.setattr(measuring, "replay", lambda candidates, **_: graphs)
    monkeypatch.setattr(measuring, "peak_bytes_here", lambda call, device: 3 * MIB)
    monkeypatch.setattr(measuring.ceilings, "gemm_rate", lambda *_: 1e12)
    monkeypatch.setattr(measuring.ceilings, "copy_bandwidth", lambda *_: 1e12)
    rows = list(measure(a_case(device="cuda")))
    assert [(row.candidate, row.quantity, row.timer) for row in rows] == [
        (OURS, "time", "graph"),
        ("dense", "time", "graph"),
        (OURS, "call", "events"),
        ("dense", "call", "events"),
    ]
    assert [row.value for row in rows] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    assert rows[1].ratio == rows[3].ratio == 2 and rows[1].target == 1e6 and rows[3].target is None
    assert all(row.memory == 3 or row.quantity == "call" for row in rows) and rows[3].roof is None
    graphs.clear()
    monkeypatch.setattr(measuring, "replay", lambda candidates, **_: None)
    assert [row.timer for row in measure(a_case(device="cuda"))] == ["events", "events"]


def test_a_forced_variant_is_undone(quickly: None) -> None:
    if backends.cpu_variant() is None:
        pytest.skip("fastgen._C is not built")
    before = backends.cpu_variant()
    seen = []
    case = dataclasses.replace(a_case(call=lambda: seen.append(backends.cpu_variant())), variant="portable")
    rows = list(measure(case, quick=True))
    assert set(seen) == {"portable"} and rows[0].instructions.startswith("portable")
    assert backends.cpu_variant() == before


def test_relative_error_is_that_of_the_worst_pair() -> None:
    x = torch.tensor([3.0, 4.0])
    assert relative_error([x, x * 1.5], [x, x]) == pytest.approx(0.5)
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0


def hold_and_return() -> Callable[[], object]:
    """A call that returns 8 MiB and holds 24 MiB more for a while."""

    def call() -> bytearray:
        scratch = bytearray(os.urandom(24 * MIB))
        return bytearray(scratch[: 8 * MIB])

    return call


def return_only() -> Callable[[], object]:
    return lambda: bytearray(b"1" * 8 * MIB)


@pytest.mark.slow
def test_memory_counts_what_a_call_holds_and_frees() -> None:
    case = MemoryCase(
        "an operation", "forward", "", {OURS: return_only, "wasteful": hold_and_return}, 8 * MIB, {"bound": 12 * MIB}
    )
    ours, wasteful, bound = measure(case)
    # `return_only` holds its bytes twice; `hold_and_return` 24 MiB twice, then once beside two of 8 MiB.
    assert ours.value == pytest.approx(8, abs=1) and wasteful.value == pytest.approx(40, abs=1)
    assert bound.value == 12 and bound.reached and bound.quantity == "extra memory"


def test_memory_of_a_call_counts_what_it_holds_and_frees() -> None:
    call = hold_and_return()
    found = peak_bytes_here(call, "cpu")
    # 24 MiB twice, then once beside two of 8 MiB; some pages come and go with the thread.
    assert found is not None and found / MIB == pytest.approx(48, abs=4)


def test_memory_of_a_gpu_is_the_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    for name, value in (("synchronize", None), ("reset_peak_memory_stats", None)):
        monkeypatch.setattr(torch.cuda, name, lambda name=name, value=value: log.append(name))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12)
    assert peak_bytes_here(lambda: log.append("call"), "cuda") == 7
    assert log == ["synchronize", "reset_peak_memory_stats", "call", "synchronize"]
