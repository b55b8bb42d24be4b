"""What benchmarks found, a short line for each case: fastgen's time, and how many times longer each other candidate takes.

Arguments: JSON files of `python -m fastgen.bench`. Needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

OURS = "fastgen"
LINES = 45
WIDTH = 120


def lines(rows: list[dict[str, Any]]) -> list[str]:
    timed = [row for row in rows if row["quantity"] == "time"]
    cases = groupby(timed, key=lambda row: (row["operation"], row["mode"], row["shape"], row["dtype"]))
    return [_line(" ".join(case), {row["candidate"]: row for row in group}) for case, group in cases]


def _line(case: str, candidates: dict[str, dict[str, Any]]) -> str:
    ours = candidates.pop(OURS, None)
    if ours is None or ours.get("note"):
        return f"{case[:WIDTH]}  {ours['note'] if ours else 'not measured'}"
    others = [f"{name} {row['ratio']:.2f}" for name, row in candidates.items() if row["ratio"] is not None]
    share = "" if ours["share"] is None else f" {ours['share']:.0%} of the roof"
    return f"{case}  {1000 * ours['value']:.1f} us{share}  {', '.join(others)}"[:WIDTH]


def main(files: list[str]) -> None:
    for file in map(Path, files):
        if not file.exists():
            print(f"{file.name}: not written")
            continue
        found = lines(json.loads(file.read_text())["rows"])
        print("\n".join(["", file.name, *found[:LINES]]))
        if len(found) > LINES:
            print(f"and {len(found) - LINES} more")


if __name__ == "__main__":
    main(sys.argv[1:])
