"""Radial flows: densities of vectors, exact and trained by maximum likelihood in either direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops import radial, radial_inverse
from .layered import LayeredFlow, LayeredTransform


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


class RadialFlow(LayeredFlow):
    """A radial flow as a density of vectors, with exact log-densities and samples. Arguments: those of `LayeredFlow`.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows". `RadialTransform` says what its layers are.
    """

    kind = RadialTransform
