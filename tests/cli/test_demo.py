from __future__ import annotations

import copy
import re

import pytest
import torch

from fastgen import flows
from fastgen.cli import app as cli
from fastgen.cli import demo, speed


def test_the_demo_prints_likelihoods_speed_and_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "TIMING_SECONDS", 0.01)
    arguments = ["demo", "--data", "moons", "--seconds", "0.001", "--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setenv("COLUMNS", "200")
    # Twice: the second run replaces the first.
    assert cli.run(arguments) == cli.run(arguments) == 0
    printed = capsys.readouterr().out
    for name in ("MAF", "diagonal Gaussian", "full-covariance Gaussian"):
        assert re.search(rf"{name} +│ +-\d\.\d{{4}}", printed)
    for work in ("training step", "log_prob"):
        assert re.search(rf"{work} +│ plain PyTorch +│ +\d+\.\d\d │ +\d+\.\d\d x", printed)
    for file in ("checkpoint.safetensors", "summary.png", "log.csv", "result.json"):
        assert str(tmp_path / file) in printed and (tmp_path / file).stat().st_size > 0


def _flow() -> flows.MAF:
    torch.manual_seed(0)
    standardise = flows.Standardise.fit(torch.randn(50, 3) * 2 + 1)
    return flows.MAF(3, transforms=2, hidden_features=(8,), preprocess=[standardise])


def test_measuring_leaves_the_model_as_it_was():
    model = _flow()
    before = copy.deepcopy(model.state_dict())
    times = speed.measure(model, torch.randn(16, 3), seconds=0.01)
    assert list(times["training step"]) == ["fastgen", "plain PyTorch", "plain PyTorch, fused Adam"]
    assert list(times["log_prob"]) == ["fastgen", "plain PyTorch"]
    assert all(len(rounds) >= 7 and min(rounds) > 0 for work in times.values() for rounds in work.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_paths_that_disagree_are_not_timed(monkeypatch):
    from fastgen.bench import plain

    right = plain.PlainMAF.log_prob
    monkeypatch.setattr(plain.PlainMAF, "log_prob", lambda self, x: right(self, x) + 0.1)
    with pytest.raises(speed.Disagreement, match="log_prob: expected the fused and the plain path to agree"):
        speed.measure(_flow(), torch.randn(16, 3), seconds=0.01)
