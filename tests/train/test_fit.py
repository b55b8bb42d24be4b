from __future__ import annotations

import numpy as np
import pytest
import torch
from density import Diagonal, shifted

from fastgen.data import Part
from fastgen.flows import MAF
from fastgen.models import BernoulliMADE
from fastgen.train import fit, log_likelihood
from fastgen.train.checkpoint import load_checkpoint


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda rows: torch.as_tensor(rows).double()])
def test_rows_of_any_kind(kind):
    model = Diagonal(3)
    records = fit(model, kind(shifted().train.rows), epochs=30, batch_size=32, learning_rate=0.05)
    # The entropy of a normal density with standard deviation 1/2, from 30 held-out rows of 3 features.
    assert records[-1].valid == pytest.approx(-0.726, abs=0.25)


def test_a_context_and_weights():
    rows = torch.randn(200, 1)
    context = rows + 0.1 * torch.randn(200, 1)
    flow = MAF(1, transforms=1, hidden_features=(16,), context_features=1)
    blind = fit(MAF(1, transforms=1, hidden_features=(16,)), rows, epochs=40, batch_size=20, learning_rate=0.01)
    seeing = fit(flow, rows, context=context, weight=torch.ones(200), epochs=40, batch_size=20, learning_rate=0.01)
    assert max(r.valid for r in seeing) > max(r.valid for r in blind) + 0.7


def test_validation_rows_of_ones_own():
    data = shifted()
    model = Diagonal(3)
    records = fit(model, data.train.rows, valid=Part(data.test.rows), epochs=3)
    assert max(r.valid for r in records) == pytest.approx(log_likelihood(model, data).mean / 3, rel=1e-6)


def test_a_data_set_and_a_run_folder(tmp_path):
    torch.manual_seed(0)
    flow = MAF(3, transforms=1, hidden_features=(8,))
    records = fit(flow, shifted(), run=tmp_path / "run", epochs=3)
    again, _ = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert torch.equal(again.log_prob(torch.ones(2, 3)), flow.log_prob(torch.ones(2, 3)))
    torch.manual_seed(0)
    flow = MAF(3, transforms=1, hidden_features=(8,))
    longer = fit(flow, shifted(), run=tmp_path / "run", resume=True, epochs=5)
    assert longer[:3] == records and len(longer) == 5
    with pytest.raises(ValueError, match="run: expected a folder without results"):
        fit(flow, shifted(), run=tmp_path / "run", epochs=3)


def test_probabilities_are_trained_on_rows_without_noise():
    rows = (torch.rand(200, 4) < 0.2).float()
    records = fit(BernoulliMADE(4, hidden_features=(8,)), rows, epochs=30, learning_rate=0.01)
    # The entropy of a coin of 0.2; 80 held-out tosses.
    assert records[-1].valid == pytest.approx(-0.5, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"valid": 0.0}, "valid: expected a fraction that leaves rows on both sides of 300, found 0.0"),
        ({"valid": 1e-4}, "valid: expected a fraction"),
        ({"context": np.ones((299, 1))}, "context: expected 2 axes and 300 rows, found shape"),
        ({"weight": -np.ones(300)}, "weight: expected numbers of at least 0"),
        ({"epochs": 0}, "epochs: expected at least 1, found 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(Diagonal(3), shifted().train.rows, **arguments)


def test_bad_rows_are_named():
    rows = shifted().train.rows.copy()
    rows[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"rows: expected finite numbers, found nan at \[7, 1\]"):
        fit(Diagonal(3), rows)
    with pytest.raises(TypeError, match="colour"):
        fit(Diagonal(3), shifted(), colour="red")
