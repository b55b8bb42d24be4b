"""Scale maps: from what a network puts out to the logarithm of a scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .activations import softplus

KINDS = ("identity", "softplus", "sigmoid", "soft_clip", "tanh", "clamp", "clamp_straight")

# Below this, log(softplus(a)) is a - e^a / 2 to the last digit of float64, while softplus itself underflows.
_SMALL = -18.0


def log_softplus(a: Tensor) -> Tensor:
    """log(softplus(a)), also where softplus(a) is below all numbers of the dtype."""
    small = a < _SMALL
    tail = torch.where(small, a, _SMALL)
    return torch.where(small, tail - 0.5 * tail.exp(), softplus(torch.where(small, 0.0, a)).log())


@dataclass(frozen=True)
class ScaleMap:
    """A map from raw network output a to log-scale s.

    | kind | s | options |
    |---|---|---|
    | identity | a | |
    | softplus | log(softplus(a) + eps) | eps |
    | sigmoid | log(sigmoid(a + 2) + eps) | eps |
    | soft_clip | a / (1 + abs(a / c)) | c |
    | tanh | c tanh(a / c) | c |
    | clamp | clamp(a, lo, hi), gradient 1 on lo <= a <= hi and 0 elsewhere | lo, hi |
    | clamp_straight | clamp(a, lo, hi), gradient 1 everywhere | lo, hi |

    Raises ValueError for an unknown kind, an option the kind does not take or lacks, eps < 0, c <= 0 or lo > hi.
    """

    kind: str = "identity"
    eps: float = 0.0
    c: float | None = None
    lo: float | None = None
    hi: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {self.kind!r}")
        if not self.eps >= 0 or (self.eps > 0 and self.kind not in ("softplus", "sigmoid")):
            raise ValueError(
                f"eps: expected 0, or a positive number with softplus and sigmoid, found {self.eps} with {self.kind}"
            )
        takes_c, takes_bounds = self.kind in ("soft_clip", "tanh"), self.kind in ("clamp", "clamp_straight")
        if takes_c != (self.c is not None) or (self.c is not None and not self.c > 0):
            raise ValueError(f"c: expected {'a positive number' if takes_c else 'None'} with {self.kind}, found {self.c}")
        if takes_bounds != (self.lo is not None) or takes_bounds != (self.hi is not None):
            raise ValueError(
                f"lo, hi: expected {'two numbers' if takes_bounds else 'None'} with {self.kind}, found {self.lo}, {self.hi}"
            )
        if self.lo is not None and self.hi is not None and not self.lo <= self.hi:
            raise ValueError(f"lo: expected at most hi, found {self.lo} and {self.hi}")
        first = next((option for option in (self.c, self.lo) if option is not None), self.eps)
        # Once: every call passes it on.
        object.__setattr__(self, "_code", (KINDS.index(self.kind), float(first), float(self.hi or 0.0)))

    def __call__(self, a: Tensor) -> Tensor:
        if self.kind == "softplus":
            return log_softplus(a) if self.eps == 0 else (softplus(a) + self.eps).log()
        if self.kind == "sigmoid":
            return F.logsigmoid(a + 2) if self.eps == 0 else ((a + 2).sigmoid() + self.eps).log()
        if self.c is not None:
            return a / (1 + (a / self.c).abs()) if self.kind == "soft_clip" else self.c * (a / self.c).tanh()
        if self.kind == "clamp":
            return a.clamp(self.lo, self.hi)
        if self.kind == "clamp_straight":
            return a.clamp(self.lo, self.hi).detach() + (a - a.detach())
        return a

    @property
    def code(self) -> tuple[int, float, float]:
        """What a kernel takes: the kind's index in `KINDS` and its up to two numbers (eps, c, or lo and hi)."""
        return self._code  # type: ignore[attr-defined]
