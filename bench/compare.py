"""Two runs side by side: what moved beyond the noise, what appeared and what vanished.

A row moved when the quartiles of the two runs do not overlap: those of its ratio to fastgen where it has one, since the
machine's drift cancels in it, else those of its number. fastgen's own times have no ratio: between runs on different
processors or numbers of threads they say nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .rows import UNITS, Row

# What has to be the same for times of two runs to be compared.
_MACHINE = ("processor", "capability", "threads")


class Moved(NamedTuple):
    """A row of both runs whose quartiles do not overlap. factor: how many times better for fastgen the second run is."""

    before: Row
    after: Row
    factor: float


class Comparison(NamedTuple):
    """same_machine: whether times without a ratio were compared. compared: the rows that both runs have a number for."""

    same_machine: bool
    compared: int
    moved: list[Moved]
    appeared: list[Row]
    vanished: list[Row]


def compare(before: tuple[Mapping[str, Any], Sequence[Row]], after: tuple[Mapping[str, Any], Sequence[Row]]) -> Comparison:
    """What differs between two runs, each as `report.read` gives it."""
    (first_run, first), (second_run, second) = before, after
    same_machine = all(first_run.get(key) == second_run.get(key) for key in _MACHINE)
    old, new = ({_key(row): row for row in rows if not row.note} for rows in (first, second))
    both = [(old[key], row) for key, row in new.items() if key in old]
    pairs = [(a, b) for a, b in both if same_machine or a.ratio is not None or a.quantity == "extra memory"]
    moved = [Moved(a, b, factor) for a, b in pairs if (factor := _factor(a, b)) is not None]
    return Comparison(
        same_machine,
        len(pairs),
        sorted(moved, key=lambda found: found.factor),
        [row for key, row in new.items() if key not in old],
        [row for key, row in old.items() if key not in new],
    )


def _key(row: Row) -> tuple[str, ...]:
    # Without the entry's name: the same case may have moved to another file.
    return *row.case[1:], row.candidate


def _factor(a: Row, b: Row) -> float | None:
    """None where the quartiles overlap."""
    if a.ratio is not None and b.ratio is not None:
        apart = _apart(a.ratio_low, a.ratio_high, b.ratio_low, b.ratio_high)
        return b.ratio / a.ratio if apart else None
    return a.value / b.value if _apart(a.low, a.high, b.low, b.high) and b.value else None


def _apart(low: float | None, high: float | None, other_low: float | None, other_high: float | None) -> bool:
    assert low is not None and high is not None and other_low is not None and other_high is not None
    return high < other_low or other_high < low


def lines(found: Comparison) -> Iterator[str]:
    """The comparison as Markdown."""
    yield f"{len(found.moved)} of {found.compared} rows moved: quartiles of the two runs do not overlap."
    if not found.same_machine:
        yield "The runs are of different machines: only ratios are compared."
    if found.moved:
        yield ""
        yield "| what | shape | candidate | before | after | for fastgen |"
        yield "|---|---|---|---|---|---|"
        for before, after, factor in found.moved:
            numbers = f"{_shown(before)} | {_shown(after)}"
            change = f"{factor:.2f} times {'better' if factor > 1 else 'worse'}"
            yield f"| {_what(after)} | {after.shape} | {after.candidate} | {numbers} | {change} |"
    for title, rows in (("appeared", found.appeared), ("vanished", found.vanished)):
        if rows:
            yield ""
            yield f"{len(rows)} {title}:"
            yield from (f"- {_what(row)}, {row.shape}: {row.candidate}" for row in rows)


def _what(row: Row) -> str:
    return f"{row.operation} {row.mode} ({row.instructions} {row.dtype})"


def _shown(row: Row) -> str:
    if row.ratio is not None:
        return f"ratio {row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
    return f"{row.value:.3g} {UNITS[row.quantity]} ({row.low:.3g}-{row.high:.3g})"
