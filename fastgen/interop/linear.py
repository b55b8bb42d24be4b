"""A masked linear layer of another library, alone: F.linear(x, weight * mask, bias)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ..ops import LinearPlan, make_plan, masked_linear
from .accelerated import Accelerated
from .conditions import changed, ordinary
from .masks import degrees_of_mask

NO_DEGREES = "its mask is not that of degrees"


class _Degrees(NamedTuple):
    inputs: Tensor
    outputs: Tensor
    plan: LinearPlan


class FastMaskedLinear(Accelerated):
    """For a subclass of nn.Linear with a `mask` (out, in) that its weight is multiplied by."""

    mask: Tensor
    weight: nn.Parameter
    bias: nn.Parameter | None

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.mask.is_meta:
            return "it is on the meta device"
        return changed(module) or (None if degrees_of_mask(module.mask) else NO_DEGREES)

    def _derive(self) -> _Degrees | Literal[False]:
        degrees = degrees_of_mask(self.mask)
        return _Degrees(*degrees, make_plan(*degrees, device=self.mask.device)) if degrees else False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, degrees = self.weight, self.bias, self.derived()
        if not degrees or not ordinary(weight, x, bias) or x.dim() == 0 or x.shape[-1] != weight.shape[1]:
            return super().forward(x)  # type: ignore[misc]
        return masked_linear(x, weight, bias, degrees.inputs, degrees.outputs, plan=degrees.plan)
