"""Flows of layers that one operation applies all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import Distribution
from .checks import at_least_one
from .stack import StackFlow
from .transform import Transform

Layers = Callable[..., tuple[Tensor, Tensor]]

# What a stack says of a context, of which these see none.
OF_A_CONTEXT = ("context_features", "embedding", "standardise_context")


class LayeredTransform(Transform):
    """K layers that one operation applies. A subclass gives the operation, its inverse and the parameters.

    Attributes:
        config: keyword arguments, as JSON knows them, that build the same transform again.
    """

    operation: ClassVar[Layers]
    inverse_operation: ClassVar[Layers]

    def __init__(
        self,
        features: int,
        layers: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        at_least_one(features=features, layers=layers)
        super().__init__()
        self.features, self.layers = features, layers
        # No numbers are drawn where there is no memory for them.
        meta = device is not None and torch.device(device).type == "meta"
        with torch.device("meta") if meta else contextlib.nullcontext():
            initial = self.initial()
        for name, value in initial.items():
            setattr(self, name, nn.Parameter(value.to(device=device, dtype=dtype or torch.get_default_dtype())))

    def initial(self) -> dict[str, Tensor]:
        """The parameters by name, in the order in which the operation takes them, drawn from torch's generator."""
        raise NotImplementedError

    @property
    def config(self) -> dict[str, Any]:
        return {"features": self.features, "layers": self.layers}

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, total = type(self).operation(x, *self.parameters())
        return z, total if log_det is None else total + log_det

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, total = type(self).inverse_operation(z, *self.parameters())
        return x, total if log_det is None else total + log_det

    def extra_repr(self) -> str:
        return f"features={self.features}, layers={self.layers}"


class LayeredFlow(StackFlow):
    """A base distribution seen through K layers, which one operation applies; a subclass says which.

    Args:
        features: D.
        transforms: K, at least 1.
        preprocess, base: see `AutoregressiveFlow`.
        context_features: 0; the layers see no context.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    kind: ClassVar[type[LayeredTransform]]

    def __init__(
        self,
        features: int,
        *,
        transforms: int = 16,
        preprocess: Iterable[Transform | Mapping[str, Any]] = (),
        base: Distribution | Mapping[str, Any] | None = None,
        context_features: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        at_least_one(transforms=transforms)
        if context_features:
            raise ValueError(f"context_features: expected 0 for {type(self).__name__}, found {context_features}")
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            features,
            [self.kind(features, transforms, **placed)],
            {"features": features, "transforms": transforms},
            context_features=0,
            preprocess=preprocess,
            base=base,
            embedding=None,
            seen=0,
            standardise_context=False,
            **placed,
        )

    @classmethod
    def stacks_modules(cls, config: Mapping[str, Any]) -> bool:
        return False

    @property
    def stack_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().stack_config.items() if name not in OF_A_CONTEXT}
