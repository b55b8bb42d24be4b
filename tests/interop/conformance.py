"""Runs another library's own tests on accelerated modules: python -m tests.interop.conformance --library zuko --tests DIR.

Every module of a class that fastgen covers is accelerated as soon as it is built, in the process of the tests alone. The same
tests run untouched as well: those that fail there too are listed apart. normflows ships its tests inside its package; for it
--tests may be left out.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastgen.interop import network
from fastgen.interop.accelerated import Accelerated, swap
from fastgen.interop.registry import ADAPTERS, LIBRARIES

LIBRARY, COUNT = "FASTGEN_CONFORMANCE_LIBRARY", "FASTGEN_CONFORMANCE_COUNT"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, choices=LIBRARIES)
    parser.add_argument("--tests", type=Path, help="a folder or a file of tests; the installed package's own otherwise")
    parser.add_argument("--select", default="", help="pytest's -k")
    arguments = parser.parse_args()
    tests = arguments.tests or installed(arguments.library)
    if not tests.exists():
        parser.error(f"--tests: expected a folder or a file of tests, found nothing at {tests}")
    untouched, _ = run(tests, arguments.select, None)
    accelerated, count = run(tests, arguments.select, arguments.library)
    return compare(untouched, accelerated, count)


def installed(library: str) -> Path:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{library} is not installed")
    return Path(spec.origin).parent


def run(tests: Path, select: str, library: str | None) -> tuple[dict[str, str], int]:
    """By test whether it passed, failed or was skipped, and how many modules were accelerated; None for none."""
    with tempfile.TemporaryDirectory() as folder:
        report, count = Path(folder, "report.xml"), Path(folder, "count")
        command = [sys.executable, "-m", "pytest", str(tests.resolve()), "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
        command += ["-o", "python_files=test_*.py *_test.py", "-o", "addopts=", "-k", select]
        command.append(f"--rootdir={tests.resolve() if tests.is_dir() else tests.resolve().parent}")
        environment = dict(os.environ)
        if library is not None:
            command += ["-p", "tests.interop.conformance"]
            root = str(Path(__file__).parents[2])
            environment |= {
                LIBRARY: library,
                COUNT: str(count),
                "PYTHONPATH": root + os.pathsep + environment.get("PYTHONPATH", ""),
            }
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise SystemExit(done.stdout + done.stderr)
        return outcomes(report), int(count.read_text()) if count.exists() else 0


def outcomes(report: Path) -> dict[str, str]:
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def compare(untouched: dict[str, str], accelerated: dict[str, str], count: int) -> int:
    """Prints the comparison; 1 where accelerated modules fail what untouched ones pass, or none was accelerated."""
    failing = [name for name, outcome in untouched.items() if outcome == "failed"]
    broken = [name for name, outcome in untouched.items() if outcome == "passed" and accelerated.get(name) != "passed"]
    passed = sum(outcome == "passed" for outcome in accelerated.values())
    print(f"{len(untouched)} tests, {count} modules accelerated: {passed} pass, {len(broken)} fail that pass untouched")
    for title, names in (("fail untouched too", failing), ("fail when accelerated", broken)):
        print(*(f"  {title}: {name}" for name in names), sep="\n", end="\n" if names else "")
    return int(bool(broken) or count == 0)


# What follows runs inside the process of the tests, where this file is a plugin of pytest.


def pytest_configure(config: Any) -> None:
    library, accelerated = os.environ[LIBRARY], Path(os.environ[COUNT])
    counter = [0]
    network.SORTED_FROM = network.GRADIENTS_FROM = 0  # small networks too
    for package, adapter in ADAPTERS.items():
        if package.partition(".")[0] == library:
            for fast in importlib.import_module(f"fastgen.interop.{adapter}").ACCELERATED:
                fast.covers.__init__ = _then_accelerate(fast, fast.covers.__init__, counter)
    config.add_cleanup(lambda: accelerated.write_text(str(counter[0])))


def _then_accelerate(fast: type[Accelerated], build: Callable[..., None], counter: list[int]) -> Callable[..., None]:
    @functools.wraps(build)
    def built(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if type(self) is fast.covers and swap(self, fast) is None:
            counter[0] += 1

    return built


if __name__ == "__main__":
    sys.exit(main())
