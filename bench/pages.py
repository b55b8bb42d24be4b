"""The tables of README.md and of docs/: each section is made of files of results, which its marker names.

<!-- begin benchmarks: cpu.json masked_linear maf -->       rows of those entries; of all without a name
<!-- begin slower: cpu.json coupling.json -->                what fastgen loses, or misses its target in
<!-- begin energies: energies.json -->, likelihoods, vae     what the modules of that name make of theirs
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import report
from .registry import UsageError, chosen
from .rows import Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
_SECTION = re.compile(r"<!-- begin (\w+): ([^>]*?) -->\n(.*?)<!-- end \1 -->", re.DOTALL)
# Sections of other files than rows of benchmarks, by the module that makes them.
_OTHERS = {"energies": "energies", "likelihoods": "likelihoods", "vae": "vae_table"}


def pages(root: Path = ROOT) -> list[Path]:
    """Those that have sections. Raises UsageError where there are none, as in an installed package."""
    candidates = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    found = [page for page in candidates if page.is_file() and _SECTION.search(page.read_text())]
    if not found:
        raise UsageError(f"--render: expected {root} to be a checkout with a README.md and docs, found no page with a table")
    return found


def rendered(page: Path, results: Path = RESULTS) -> str:
    """The page with every section made anew of the files in `results`."""

    def section(found: re.Match[str]) -> str:
        kind, what, _ = found.groups()
        try:
            text = _text(kind, what.split(), results)
        except ValueError as error:
            raise UsageError(f"{page}: {error}") from error
        return f"<!-- begin {kind}: {what} -->\n{text}\n<!-- end {kind} -->"

    return _SECTION.sub(section, page.read_text())


def _text(kind: str, words: Sequence[str], results: Path) -> str:
    files = [results / word for word in words if word.endswith(".json")]
    names = [word for word in words if not word.endswith(".json")]
    if kind in _OTHERS:
        return importlib.import_module(f"fastgen.bench.{_OTHERS[kind]}").section(files[0])
    if kind not in ("benchmarks", "slower"):
        raise UsageError(f"expected a section of benchmarks, slower, {', '.join(_OTHERS)}, found {kind}")
    wanted = {entry.name for entry in chosen(names)}
    runs = [report.read(file) for file in files]
    if kind == "slower":
        usual = runs[0][0]["cpu_variant"]
        return "\n".join(slower([row for _, rows in runs for row in rows if row.entry in wanted], usual))
    return "\n\n".join(report.markdown(run, [row for row in rows if row.entry in wanted]) for run, rows in runs)


def slower(rows: Sequence[Row], usual: str | None) -> Iterator[str]:
    """What fastgen loses, and what it wins by less than its target; instructions are named where they are not `usual`."""
    compared = [row for row in rows if row.ratio is not None]
    lost = [row for row in compared if row.ratio is not None and row.ratio < 1 and row.reached is not True]
    missed = [row for row in compared if row.reached is False and row not in lost]
    yield f"Of {len(compared)} comparisons fastgen loses {len(lost)}, and wins {len(missed)} by less than it was to."
    for title, found in (("Lost", lost), ("Won by less than the target", missed)):
        if found:
            yield ""
            yield f"| {title} | shape | against | ratio | target |"
            yield "|---|---|---|---|---|"
            yield from (_line(row, usual) for row in found)


def _line(row: Row, usual: str | None) -> str:
    target = "" if row.target is None else f"{row.target:.3g}"
    return f"| {report.what(row, usual)} | {row.shape} | {row.candidate} | {row.ratio:.2f} | {target} |"
