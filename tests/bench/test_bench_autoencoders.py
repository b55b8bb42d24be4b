"""The pages on autoencoders and energies: what they say follows from the results."""

from __future__ import annotations

import json
from pathlib import Path

from fastgen.bench import energies, vae_table

DOCS = Path(__file__).parents[2] / "docs"
RUN = {"processor": "a processor", "threads": 1, "versions": {"torch": "2"}, "time": "2026-01-01T00:00:00"}


def _result(name: str, *estimate: float) -> dict:
    bound = [value + 1 for value in estimate]
    return {"name": name, "bound": bound, "estimate": estimate, "epochs": [9] * len(bound), "seconds": 3.0, "paper": ""}


def test_the_page_says_which_orders_hold(tmp_path):
    rows = [
        _result("VAE", 100, 101, 102),
        _result("planar, K = 2", 99, 100, 101),
        _result("planar, K = 16", 99.5, 101, 101.5),
        _result("IWAE, k = 5", 98, 98, 98),
        _result("IWAE, k = 50", 97, 97, 99),
    ]
    (tmp_path / "vae.json").write_text(json.dumps({"environment": RUN, "rows": rows}))
    page = tmp_path / "vae.md"
    page.write_text((DOCS / "vae.md").read_text())
    assert vae_table.main(["--render", str(tmp_path / "vae.json"), str(page)]) == 0
    text = page.read_text()
    assert "| VAE | 101.00 | 1.00 | 102.00 | 1.00 | 9 | 3 s |  |" in text
    assert "planar, K = 2 before VAE by 1.00 nats (spread 0.00): as in Rezende & Mohamed 2015." in text
    assert "planar, K = 16 before planar, K = 2 by -0.67 nats (spread 0.29): unlike Rezende & Mohamed 2015." in text
    assert "IWAE, k = 50 before IWAE, k = 5 by 0.33 nats (spread 1.15): undecided against Burda et al. 2016." in text
    assert "IWAE, k = 5 before" not in text and "Measured on: a processor, 1 threads" in text


def test_energies_are_drawn_and_told(tmp_path):
    fits = [energies.fit(name, transforms, restarts=2, steps=1) for name in ("U1", "U3") for transforms in (2, 8)]
    assert all(len(fit.divergence) == len(fit.standard_error) == 2 for fit in fits)
    rows = [vars(fit) for fit in fits]
    (tmp_path / "e.json").write_text(json.dumps({"environment": RUN, "rows": rows}))
    page = tmp_path / "energies.md"
    page.write_text((DOCS / "energies.md").read_text())
    assert energies.main(["--render", str(tmp_path / "e.json"), str(page)]) == 0
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert f"| U1 | 1.8775 | 2 | {min(fits[0].divergence):.3f} |" in page.read_text()
    axes = energies.picture(fits).axes
    assert axes[0].get_title() == "U1: the density" and axes[5].get_title().startswith("K = 2, KL")
