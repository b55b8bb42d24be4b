"""The pictures: drawn where there are rows of their kind, and not where there are none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fastgen.bench import plots
from fastgen.bench.case import OURS
from fastgen.bench.exponents import fit
from fastgen.bench.roofline import COPY, GEMM, roofline
from fastgen.bench.rows import Row
from fastgen.bench.sizes import series, shape_of

RUN = {"cpu_variant": "avx2", "ceilings": {GEMM: {"float32": 2e11}, COPY: {"4096": 1e11, "1073741824": 1e10}}}


def a_row(candidate: str = OURS, value: float = 10.0, **more: Any) -> Row:
    given = {"operation": "an op", "mode": "forward", "shape": "2 x 3", "quantity": "time", **more}
    places = {"dtype": "float32", "device": "cpu", "instructions": "avx2", "candidate": candidate}
    return Row(**{**given, **places}, value=value, low=0.9 * value, high=1.1 * value)


COMPARED = [a_row(), a_row("dense", 20.0, ratio=2.0, ratio_low=1.5, ratio_high=2.5, target=3.0), a_row("tiny", 5.0, ratio=0.5)]
SWEPT = [
    a_row(value=size / 10, shape=shape_of(axis, size, "rest"), quantity=quantity)
    for axis in ("depth", "batch")
    for quantity in ("time", "extra memory")
    for size in (2, 4, 8)
]
ROOFED = [a_row(flops=4e9, bytes=1e8, roof=5.0, bound="arithmetic", share=0.5)]

KINDS = {
    "speedup-an-op": COMPARED,
    "share-of-the-roof": ROOFED,
    "roofline": ROOFED,
    "time-against-size": SWEPT,
    "extra-memory-against-size": SWEPT,
    "memory-against-depth": SWEPT,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_picture_is_drawn_for_its_rows_alone(name: str) -> None:
    drawn = dict(plots.figures(RUN, KINDS[name]))
    assert name in drawn
    for other, rows in KINDS.items():
        if rows is not KINDS[name]:
            assert other not in drawn


def test_files_are_pictures(tmp_path: Path) -> None:
    files = plots.draw(RUN, COMPARED, tmp_path / "new")
    assert files == [tmp_path / "new" / "speedup-an-op.png"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert plots.draw(RUN, [a_row()], tmp_path / "none") == []


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels(), ax.title, ax._left_title)]


def test_bars_say_what_they_show() -> None:
    figure = dict(plots.figures(RUN, COMPARED))["speedup-an-op"]
    assert {"2.00", "0.50", "forward\n2 x 3"} <= set(texts(figure))
    (ax,) = figure.axes
    widths = sorted(round(bar.get_width(), 6) for bar in ax.patches)  # type: ignore[attr-defined]
    assert widths == [-0.5, 1.0] and ax.get_xscale() == "log"


def test_points_lie_under_the_roof_at_their_intensity() -> None:
    figure = roofline(RUN, ROOFED)
    assert figure is not None
    (ax,) = figure.axes
    point = ax.lines[0]
    # 4 GFLOP over 100 MB in 10 ms.
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([40.0], [400.0])
    assert roofline({}, ROOFED) is None and roofline(RUN, [a_row(share=0.5)]) is None


def test_series_are_found_by_axis_and_depth() -> None:
    rows = [a_row(shape=f"256 x 64, {depth} x hidden 512 x 2") for depth in (8, 4)] + [a_row(shape="9 x hidden 1")]
    ((key, points),) = series(rows).items()
    assert (key.axis, key.rest, list(points)) == ("depth", "256 x 64, n x hidden 512 x 2", [4, 8])
    assert {key.axis for key in series(SWEPT)} == {"depth", "batch"}


def test_an_exact_power_law_is_found_again() -> None:
    law = fit({size: 3 * size**1.5 for size in (4, 16, 64, 256)})
    assert law is not None and law.exponent == pytest.approx(1.5) and law.factor == pytest.approx(3)
    assert law.error < 1e-9 and law.deviation < 1e-9 and (law.low, law.high) == (4, 256)


def test_sizes_that_overheads_rule_are_left_out_and_said_to_be() -> None:
    law = fit({size: 100 + size**2 for size in (1, 2, 64, 128, 256)})
    assert law is not None and law.exponent == pytest.approx(2, abs=0.02) and (law.low, law.high) == (64, 256)


def test_the_error_of_an_exponent_is_that_of_least_squares() -> None:
    # Logarithms 0, 1 + d, 2 over sizes e^0, e^1, e^2 (nearly): residuals -d/3, 2d/3, -d/3.
    law = fit({1: 1.0, 10: 10.5, 100: 100.0})
    assert law is not None and law.exponent == pytest.approx(1.0)
    residuals = math.log(1.05) * math.sqrt(6) / 3
    assert law.error == pytest.approx(residuals / math.sqrt(2) / math.log(10))


def test_two_sizes_make_no_law() -> None:
    assert fit({1: 1.0, 2: 2.0}) is None
