"""The cases themselves: fastgen's results are right, every candidate runs, the work is counted as documented."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from fastgen.bench import __main__ as command
from fastgen.bench import measure as measuring
from fastgen.bench import report
from fastgen.bench.case import OURS, Case, Setting
from fastgen.bench.ops import masked_linear
from fastgen.bench.plain import PlainMAF
from fastgen.flows import MAF

QUICK = Setting(quick=True)


def cases_of(name: str, setting: Setting) -> list[Case]:
    module = importlib.import_module(f"fastgen.bench.{name}" if name in command.WHOLE else f"fastgen.bench.ops.{name}")
    return [case for case in module.cases(setting) if isinstance(case, Case)]


@pytest.mark.parametrize("name", command.NAMES)
def test_results_are_right_and_candidates_run(name: str) -> None:
    cases = cases_of(name, QUICK)
    assert cases
    for case in cases:
        assert case.error() <= case.error_limit
        assert set(case.targets) < set(case.candidates) and OURS in case.candidates
        for candidate, call in case.candidates.items():
            # Compiling takes most of a minute and is left to the benchmark itself.
            if not candidate.startswith("compiled"):
                call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", command.NAMES)
def test_results_are_right_on_cuda(name: str) -> None:
    for case in cases_of(name, Setting("cuda", True)):
        with measuring.cpu_variant(case.variant):
            assert case.error() <= case.error_limit


def test_work_of_a_masked_layer() -> None:
    first, hidden, last = masked_linear.made_layers(2, 4)
    # Two features: hidden units see the first one only, and the outputs of the second feature see all hidden units.
    assert (first.out_degrees, hidden.out_degrees, last.out_degrees) == ((1,) * 4, (1,) * 4, (1, 1, 2, 2))
    for layer, allowed, fan_in, fan_out in ((first, 4, 2, 4), (hidden, 16, 4, 4), (last, 8, 4, 4)):
        forward, backward = masked_linear.work(layer, 3, torch.float32)
        assert forward == (2 * 3 * allowed, 4 * (3 * fan_in + allowed + fan_out + 3 * fan_out))
        assert backward == (4 * 3 * allowed, 4 * (3 * (2 * fan_in + fan_out) + allowed + fan_in * fan_out + fan_out))


def test_the_plain_flow_is_the_same_density() -> None:
    flow = MAF(5, transforms=3, hidden_features=(16, 8), dtype=torch.float64)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(PlainMAF(flow).log_prob(x), flow.log_prob(x))


def test_the_command_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SECONDS", {True: 0.01, False: 0.01})
    file, page = tmp_path / "rows.json", tmp_path / "page.md"
    assert command.main(["gaussian_log_prob", "--quick", "--json", str(file)]) == 0
    run, rows = report.read(file)
    assert {row.operation for row in rows} == {"gaussian_log_prob"} and {row.mode for row in rows} == {
        "forward",
        "forward+backward",
    }
    assert {"time", "git", "versions", "processor", "threads"} <= set(run)
    page.write_text("<!-- begin benchmarks --><!-- end benchmarks -->")
    assert command.main(["--render", str(file), str(page)]) == 0
    assert "gaussian_log_prob forward" in page.read_text()


@pytest.mark.parametrize("arguments", [["planar_typo"], ["--device", "tpu"], ["--threads", "many"]])
def test_bad_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert arguments[-1] in capsys.readouterr().err
