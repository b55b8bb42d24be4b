"""Planar flows: densities of vectors, exact and trained by maximum likelihood in either direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops import planar, planar_inverse
from .layered import LayeredFlow, LayeredTransform


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


class PlanarFlow(LayeredFlow):
    """A planar flow as a density of vectors, with exact log-densities and samples. Arguments: those of `LayeredFlow`.

    Rezende & Mohamed 2015, "Variational Inference with Normalizing Flows". `PlanarTransform` says what its layers are.
    """

    kind = PlanarTransform
