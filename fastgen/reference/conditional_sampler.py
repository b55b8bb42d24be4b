"""Conditional samplers: one feature, drawn from random numbers and what a network puts out for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .scale_map import ScaleMap

KINDS = ("bernoulli", "categorical", "gaussian", "mixture")


@dataclass(frozen=True)
class ConditionalSampler:
    """How a feature is drawn from the P outputs for it and Q random numbers, u uniform in [0, 1) and e normal.

    | kind | value | outputs | numbers |
    |---|---|---|---|
    | bernoulli | 1 if u < sigmoid(l), else 0 | l | u |
    | categorical | the c at which the distribution function of softmax(l) passes u | l (size) | u |
    | gaussian | e exp(s) + mean, s = scale_map(raw) | mean, raw | e |
    | mixture | the same for the component k at which that of softmax(l) passes u | l, means, raws (size each) | u, e |

    Of a NaN output, or of logits whose softmax is one, Bernoulli and categorical values are 0 and the component is the first.

    size: how many categories or components. Raises ValueError for an unknown kind, a size below 1 or one where there is none.
    """

    kind: str
    size: int = 1
    scale_map: ScaleMap = ScaleMap()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.size < 1 or (self.size > 1 and self.kind in ("bernoulli", "gaussian")):
            expected = "1" if self.kind in ("bernoulli", "gaussian") else "at least 1"
            raise ValueError(f"size: expected {expected} with {self.kind}, found {self.size}")

    @property
    def outputs(self) -> int:
        """P, what a network puts out per feature."""
        return {"bernoulli": 1, "categorical": self.size, "gaussian": 2, "mixture": 3 * self.size}[self.kind]

    @property
    def inputs(self) -> int:
        """C, the columns of one feature in the network's input."""
        return self.size if self.kind == "categorical" else 1

    @property
    def numbers(self) -> int:
        """Q, the random numbers that one feature takes."""
        return 2 if self.kind == "mixture" else 1

    def encode(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What a network reads of features x (..., D): (..., D C) of `dtype`. Categories one-hot, what is none as zeros."""
        if self.kind != "categorical":
            return x.to(dtype)
        return (x.unsqueeze(-1) == torch.arange(self.size, device=x.device)).to(dtype).flatten(-2)

    def __call__(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """One feature (...) from its outputs (..., P) and noise (..., Q), in the noise's dtype."""
        outputs = outputs.to(noise.dtype)
        first, last = noise[..., 0], noise[..., -1]
        if self.kind == "bernoulli":
            return (first < outputs.squeeze(-1).sigmoid()).to(noise.dtype)
        if self.kind == "categorical":
            return _choose(outputs, first).to(noise.dtype)
        if self.kind == "gaussian":
            mean, raw = outputs.unbind(-1)
            return last * self.scale_map(raw).exp() + mean
        logits, means, raws = outputs.unflatten(-1, (3, self.size)).unbind(-2)
        k = _choose(logits, first).unsqueeze(-1)
        return last * self.scale_map(raws.gather(-1, k).squeeze(-1)).exp() + means.gather(-1, k).squeeze(-1)

    @property
    def code(self) -> tuple[int, int, int, float, float]:
        """What a kernel takes: the kind's index in `KINDS`, the size and the scale map's code."""
        return KINDS.index(self.kind), self.size, *self.scale_map.code


def _choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """The category (...) at which the distribution function of softmax(logits) (..., C) passes uniform (...): int64."""
    sums = logits.softmax(-1).cumsum(-1)
    # The last sum is 1 up to rounding, and a number below 1 times it is below it.
    return (sums[..., :-1] <= uniform.unsqueeze(-1) * sums[..., -1:]).sum(-1)
