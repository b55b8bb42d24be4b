"""What models that are densities of their own have in common: fastgen beside plain PyTorch, every pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .case import OURS, Case, Setting
from .eager import candidates, truth
from .networks import Works
from .steps import own, whole_model


def beside_pytorch(
    model: Any,
    x: Tensor,
    shape: str,
    works: Works,
    setting: Setting,
    targets: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[Case]:
    """The cases of a model with a `log_prob`, under its class's name."""
    against = {OURS: own(model, model.log_prob, x), **candidates(model, "log_prob", x, setting)}
    yield from whole_model(type(model).__name__, shape, against, truth(model, "log_prob"), works, targets)
