"""A transform without a context inside a flow that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .transform import Retraced, Transform, build_transform, describe_transform


class Unconditional(Transform):
    """A transform that is not shown the context of the flow it is in; it may be given as `build_transform` takes it."""

    def __init__(
        self,
        transform: Transform | Mapping[str, Any],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.transform = build_transform(transform, device=device, dtype=dtype)

    @property
    def config(self) -> dict[str, Any]:
        return {"transform": describe_transform(self.transform)}

    @property
    def exact_inverse(self) -> bool:
        return self.transform.exact_inverse

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(z, log_det=log_det)

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        return self.transform.normal_log_prob(x, log_det=log_det)

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        return self.transform.retrace(output, inverse=inverse)
