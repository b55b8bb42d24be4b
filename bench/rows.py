"""What a measurement is kept as: a row for each candidate of each case."""

from __future__ import annotations

import math
from dataclasses import dataclass

# The value of a row without one: its note says why.
NOTHING = math.nan

UNITS = {"time": "ms", "call": "ms", "extra memory": "MiB"}


@dataclass(frozen=True)
class Row:
    """One measured number: one candidate of one case.

    quantity: "time", in ms; "call", in ms, where "time" is that of a GPU's kernels alone and this is with what starts them from
        Python; or "extra memory", in MiB. `low` and `high` are the quartiles around the median `value`.
    ratio: the median over the rounds of this candidate's number through fastgen's; above 1 fastgen is better.
    roof: the least number of ms the work can take here, limited by `bound`: "arithmetic" or "bandwidth".
    share: roof / value.
    error: the relative error of the candidate's results, checked before.
    entry: the registry's name of what was measured.
    memory: MiB by which memory rises during one call, what it returns included.
    timer: what was timed: a "loop" of calls, the same between "events" on a GPU, or a "graph" of its kernels.
    flops, bytes: the least work there is, floating-point operations in matrix products and bytes read and written.
    note: why there is no value: results that differ from the truth, or a candidate that does not run or compile.
    """

    operation: str
    mode: str
    shape: str
    dtype: str
    device: str
    instructions: str
    candidate: str
    quantity: str
    value: float
    low: float
    high: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    target: float | None = None
    roof: float | None = None
    bound: str | None = None
    share: float | None = None
    error: float | None = None
    entry: str = ""
    memory: float | None = None
    timer: str = ""
    note: str = ""
    flops: float | None = None
    bytes: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the ratio reaches its target; None without one."""
        return None if self.target is None or self.ratio is None else self.ratio >= self.target

    @property
    def case(self) -> tuple[str, ...]:
        """What the rows of one comparison have in common."""
        return self.entry, self.operation, self.mode, self.shape, self.dtype, self.device, self.instructions, self.quantity
