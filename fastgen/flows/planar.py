"""Planar and radial flows: densities of vectors, exact and trained by maximum likelihood in either direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..ops import planar, planar_inverse, radial, radial_inverse
from .base import Distribution
from .checks import at_least_one
from .flow import Flow
from .registry import build_base, describe_base, described, preprocessing
from .transform import Composed, Transform

Layers = Callable[..., tuple[Tensor, Tensor]]


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
        for name, value in self.initial().items():
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


class PlanarTransform(LayeredTransform):
    """K planar layers z + u_hat tanh(w.z + b), constrained to be invertible, from data to noise.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equation 10 and appendix A.1. Both directions are
    exact and differentiable: the inverse is `fastgen.ops.planar_inverse`. A posterior that goes from noise to latent by planar
    layers uses `Inverse(PlanarTransform(...))`.

    Args:
        features: D.
        layers: K.

    Raises:
        ValueError: fewer than one feature or layer.
    """

    operation = staticmethod(planar)
    inverse_operation = staticmethod(planar_inverse)

    def initial(self) -> dict[str, Tensor]:
        # Directions of length 1: u_hat has no limit where w vanishes. A short u with w.u about log(e - 1), where the layer is
        # the identity but for u.
        w = nn.functional.normalize(torch.randn(self.layers, self.features), dim=-1)
        u = 0.1 / math.sqrt(self.features) * torch.randn(self.layers, self.features) + math.log(math.e - 1) * w
        return {"u": u, "w": w, "b": 0.5 * torch.randn(self.layers)}


class RadialTransform(LayeredTransform):
    """K radial layers z + beta (z - c) / (alpha + |z - c|), constrained to be invertible, from data to noise.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows", equation 14 and appendix A.2. Both directions are
    exact and differentiable, the inverse in closed form.

    Args:
        features: D.
        layers: K.

    Raises:
        ValueError: fewer than one feature or layer.
    """

    operation = staticmethod(radial)
    inverse_operation = staticmethod(radial_inverse)

    def initial(self) -> dict[str, Tensor]:
        # alpha about 1 and softplus(raw_beta) about alpha: nearly the identity.
        return {
            "centre": torch.randn(self.layers, self.features),
            "log_alpha": 0.1 * torch.randn(self.layers),
            "raw_beta": math.log(math.e - 1) + 0.1 * torch.randn(self.layers),
        }


class LayeredFlow(Flow):
    """A base distribution seen through K layers, which one operation applies; a subclass says which.

    Args:
        features: D.
        transforms: K, at least 1.
        preprocess: transforms of the data before these: those of PREPROCESSING or one's own; the former also as a dict, their
            name under "transform" and their arguments.
        base: the distribution of the noise, one of BASES or one's own; the former also as a dict, their name under "base" and
            their arguments, but features; None: the standard normal.
        context_features: 0; the layers see no context.

    Raises:
        ValueError, TypeError: an argument out of its range or of no meaning.
    """

    transform: Composed
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
        before = [preprocessing(t).to(**placed) for t in preprocess]
        layers = self.kind(features, transforms, **placed)
        super().__init__(build_base(base, features, 0, **placed), Composed([*before, layers]))
        self._config = {"features": features, "transforms": transforms}

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same flow again; its state_dict holds all numbers.

        Raises TypeError where `preprocess` or `base` is of one's own.
        """
        before = [described(t) for t in list(self.transform)[:-1]]
        return {**self._config, "preprocess": before, "base": describe_base(self.base)}


class PlanarFlow(LayeredFlow):
    """A planar flow as a density of vectors, with exact log-densities and samples. Arguments: those of `LayeredFlow`.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows". `PlanarTransform` says what its layers are.
    """

    kind = PlanarTransform


class RadialFlow(LayeredFlow):
    """A radial flow as a density of vectors, with exact log-densities and samples. Arguments: those of `LayeredFlow`.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows". `RadialTransform` says what its layers are.
    """

    kind = RadialTransform
