"""python -m fastgen.bench: `fastgen bench` where only torch is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .command import run
from .registry import UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except UsageError as error:
        print(f"fastgen bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
