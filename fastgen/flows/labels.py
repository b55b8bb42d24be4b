"""Class labels as contexts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import at_least_one, check_context


class ClassEmbedding(nn.Module):
    """A learned vector for each class, from contexts (..., 1) that hold the labels 0..classes-1.

    Args:
        classes: how many.
        features: how many numbers it answers with for each.

    Raises:
        ValueError: fewer than one class or feature.
    """

    def __init__(
        self,
        classes: int,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        at_least_one(classes=classes, features=features)
        self.classes, self.features = classes, features
        self.weight = nn.Parameter(torch.randn(classes, features, device=device, dtype=dtype))

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same network again."""
        return {"classes": self.classes, "features": self.features}

    def forward(self, context: Tensor) -> Tensor:
        """context (..., 1), whole numbers of any dtype but bool, -> (..., features).

        Raises ValueError for what is no label. On a device that is not to be waited for, or compiled, the answer is NaN there.
        """
        # Exact in float64, where neither the number of classes nor a label is rounded as in a narrower dtype.
        labels = check_context(context, 1)[..., 0].double()
        index = labels.nan_to_num().clamp(0, self.classes - 1).long()
        known = index == labels
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and not known.all():
            found = labels[~known][0].item()
            raise ValueError(f"context: expected labels from 0 to {self.classes - 1}, found {found:.9g}")
        return torch.where(known[..., None], F.embedding(index, self.weight), torch.nan)

    def extra_repr(self) -> str:
        return f"classes={self.classes}, features={self.features}"
