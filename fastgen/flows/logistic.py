"""The logistic distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import _check
from ..reference.accumulate import accumulator
from .base import Distribution
from .batch import draw
from .checks import at_least_one


class StandardLogistic(Distribution):
    """The logistic distribution of D features, e^z / (1 + e^z)^2 each: the prior of NICE (Dinh et al. 2015, section 3.4).

    Raises ValueError for fewer than one feature.
    """

    like: Tensor
    features: int

    def __init__(self, features: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        # Holds nothing: it follows the module to the device and dtype that samples are to have.
        self.register_buffer("like", torch.zeros(0, device=device, dtype=dtype), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        _check.features(z, "z", self.features)
        z = z.to(accumulator(z.dtype))
        return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)

    def rsample(
        self, shape: Sequence[int] = (), context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        dtype = accumulator(self.like.dtype)
        uniform = draw(torch.rand, (*shape, self.features), generator, dtype=dtype, device=self.like.device)
        # Zero, which `rand` may draw, would be a sample at -inf.
        return uniform.clamp(min=torch.finfo(dtype).eps / 4).logit().to(self.like.dtype)

    def centre(self, context: Tensor | None = None) -> float:
        return 0.0
