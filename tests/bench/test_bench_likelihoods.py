from __future__ import annotations

import json

from fastgen.bench import likelihoods


def _row(data: str, name: str, nats: list[float]) -> dict:
    result = likelihoods.Result(data, name, nats, [-130.0] * len(nats), [2.0] * len(nats), 0.5, 10.0, baseline_bits=[3.0])
    return vars(result)


def test_results_of_other_rows_stay_and_those_of_the_same_are_replaced(tmp_path):
    path = tmp_path / "likelihoods.json"
    for row in (_row("mnist", "NICE", [-1.0]), _row("digits", "MADE", [-2.0]), _row("mnist", "NICE", [-3.0])):
        likelihoods.write(path, row)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["data"], row["name"], row["nats"]) for row in rows] == [("digits", "MADE", [-2.0]), ("mnist", "NICE", [-3.0])]


def test_a_row_of_one_seed_has_no_spread(tmp_path):
    path = tmp_path / "likelihoods.json"
    for row in (_row("digits", "NICE", [-91.0, -93.0]), _row("mnist", "NICE", [-1000.0])):
        likelihoods.write(path, row)
    run = json.loads(path.read_text())
    text = likelihoods.markdown(run["environment"], [likelihoods.Result(**row) for row in run["rows"]])
    assert "| | NICE | -92.00 | 1.41 | 2.000 |  | 10 s |" in text
    assert "| mnist | full-covariance Gaussian | -130.00 |  | 3.000 | | |" in text
    assert "| | NICE | -1000.00 |  | 2.000 |  | 10 s |" in text
