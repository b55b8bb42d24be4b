"""The affine or additive map of a coupling layer's transformed entries, as other libraries wrap it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import CouplingPlan, ScaleMap, additive_coupling, affine_coupling, make_coupling_plan


class Split(NamedTuple):
    """Which features or channels are transformed, with the plan of that, and where those lie that pass."""

    mask: Tensor
    plan: CouplingPlan
    passing: slice | Tensor

    @staticmethod
    def of(features: int, transformed: Sequence[int] | Tensor, device: torch.device) -> Split:
        mask = torch.zeros(features, dtype=torch.bool)
        mask[torch.as_tensor(transformed, device="cpu")] = True
        passing = (~mask).nonzero().flatten().tolist()
        step = passing[1] - passing[0] if len(passing) > 1 else 1
        regular = bool(passing) and list(range(passing[0], passing[-1] + 1, step)) == passing
        where = slice(passing[0], passing[-1] + 1, step) if regular else torch.tensor(passing, device=device)
        return Split(mask, make_coupling_plan(mask, device), where)

    def passed(self, x: Tensor) -> Tensor:
        """The features or channels that pass, in order: a view where they lie at regular steps."""
        return x[:, self.passing] if isinstance(self.passing, slice) else x.index_select(1, self.passing)

    def affine(self, x: Tensor, shift: Tensor, raw: Tensor, scale_map: ScaleMap, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """x (B, D) or (B, C, H, W), its transformed entries times s plus shift, and log|det| (B,) of x's dtype."""
        y, log_det = affine_coupling(
            x, shift, raw, self.mask, event_dims=x.dim() - 1, inverse=inverse, scale_map=scale_map, plan=self.plan
        )
        return y, log_det.to(x.dtype)

    def additive(self, x: Tensor, shift: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        y, log_det = additive_coupling(x, shift, self.mask, event_dims=x.dim() - 1, inverse=inverse, plan=self.plan)
        return y, log_det.to(x.dtype)
