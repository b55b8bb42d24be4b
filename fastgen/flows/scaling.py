"""A learned scale for each feature, and a shift where wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import _check
from ..reference.accumulate import accumulator
from .checks import at_least_one
from .transform import Transform, spread_log_det


class Scaling(Transform):
    """z = x e^{log_scale}, feature by feature, with log_scale (D,) learned; at first the identity.

    Dinh et al. 2015, "NICE: Non-linear Independent Components Estimation", section 3.3: what lets couplings that keep volume
    weigh features differently.

    Args:
        features: D.
        shift: whether a learned shift (D,) is added, z = x e^{log_scale} + shift.

    Raises:
        ValueError: fewer than one feature.
    """

    shift: nn.Parameter | None

    def __init__(
        self,
        features: int,
        *,
        shift: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(features=features)
        self.features = features
        self.log_scale = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        added = nn.Parameter(torch.zeros(features, device=device, dtype=dtype)) if shift else None
        self.register_parameter("shift", added)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same transform again, its numbers excepted."""
        return {"features": self.features, "shift": self.shift is not None}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(x, "x", self.features)
        z = x * self.log_scale.exp()
        return z if self.shift is None else z + self.shift, spread_log_det(self._total(x), x, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _check.features(z, "z", self.features)
        y = z if self.shift is None else z - self.shift
        return y * (-self.log_scale).exp(), spread_log_det(-self._total(z), z, log_det)

    def _total(self, x: Tensor) -> Tensor:
        return self.log_scale.to(accumulator(x.dtype)).sum()

    def extra_repr(self) -> str:
        return f"features={self.features}"
