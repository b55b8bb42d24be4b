"""zuko: Rozet et al. 2022, "Zuko: Normalizing flows in PyTorch"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from fastgen.ops import ScaleMap

from ..networks import Sizes
from .masked import Block, MaskedPeer


@contextmanager
def _without_validation() -> Iterator[None]:
    """As zuko has it, and every other library has not: importing it switches torch's validation off in the whole process."""
    before = Distribution._validate_args  # type: ignore[attr-defined]
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def maf(sizes: Sizes) -> MaskedPeer:
    """Every other transform has the features' order reversed."""
    with _without_validation():
        import zuko

        model = zuko.flows.MAF(sizes.features, transforms=sizes.transforms, hidden_features=[sizes.hidden] * 2)
    columns, rows = torch.arange(sizes.features), torch.arange(2 * sizes.features)
    activations = ("relu", "relu", "identity")
    blocks = [Block(list(transform.hyper)[::2], activations, columns, rows) for transform in model.transform.transforms]

    @_without_validation()
    def log_prob(model: Any, x: Tensor) -> Tensor:
        return model().log_prob(x)

    @_without_validation()
    def inverse(model: Any, z: Tensor) -> Tensor:
        return model().transform.inv(z)

    @_without_validation()
    def sample(model: Any, n: int) -> object:
        return model().sample((n,))

    scale_map = ScaleMap("soft_clip", c=-math.log(1e-3))
    return MaskedPeer(model, blocks, scale_map, log_prob, inverse, sample, compilable=_built_outside)


def _built_outside(model: Any) -> Callable[[Tensor], Tensor]:
    """Its distribution, which the compiler cannot build, made once: it reads the parameters as they are."""
    with _without_validation():
        return model().log_prob
