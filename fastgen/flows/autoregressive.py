"""The masked autoregressive transform."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..nn import MADE
from ..ops import ScaleMap, affine_autoregressive, gaussian_log_prob
from .transform import Transform

# Scales between 1/1000 and 1000: wide enough for data, and a wild network output cannot overflow.
SCALE_MAP = ScaleMap("soft_clip", c=math.log(1000))

# What is not for the user to choose of the network.
FIXED: dict[str, Any] = {"outputs": 2, "inputs": 1, "masks": 1}


class MaskedAutoregressiveTransform(Transform):
    """z_i = (x_i - mu_i) e^{-s_i}, with mu_i and s_i from a MADE of the features before i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4. `forward` is one pass
    of the network; `inverse` is one per feature, exact and differentiable.

    Args:
        features: D.
        scale_map: from the network's output to s: a ScaleMap, or the keyword arguments of one.
        options: those of `fastgen.nn.MADE`, `outputs`, `inputs` and `masks` excepted.

    Attributes:
        config: keyword arguments, as JSON knows them, that build the same transform again.
    """

    def __init__(self, features: int, *, scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP, **options: Any) -> None:
        super().__init__()
        self.scale_map = scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)
        self.made = MADE(features, **FIXED, **options)
        self._generation_order: list[int] = self.made.degrees.argsort().tolist()

    @property
    def config(self) -> dict[str, Any]:
        made = {name: value for name, value in self.made.config.items() if name not in FIXED}
        return {**made, "scale_map": dataclasses.asdict(self.scale_map)}

    def _shift_and_log_scale(self, x: Tensor, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        # Under autocast the network answers in half precision; the data stays what it is.
        shift, log_scale = self.made.evaluate(x, terms).to(x.dtype).unbind(-1)
        return shift, log_scale

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(x, self.made.context_terms(context))
        return affine_autoregressive(x, shift, log_scale, scale_map=self.scale_map, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        terms = self.made.context_terms(context)
        x = torch.zeros_like(z)
        for i in self._generation_order[:-1]:
            shift, log_scale = self._shift_and_log_scale(x, terms)
            column = slice(i, i + 1)
            value, _ = affine_autoregressive(
                z[..., column], shift[..., column], log_scale[..., column], inverse=True, scale_map=self.scale_map
            )
            # The features still to come stay 0: what the network says of them now could overflow.
            x = x.slice_scatter(value, -1, i, i + 1)
        # No output depends on the last feature, so this pass gives the parameters of all.
        shift, log_scale = self._shift_and_log_scale(x, terms)
        return affine_autoregressive(z, shift, log_scale, inverse=True, scale_map=self.scale_map, log_det=log_det)

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        shift, log_scale = self._shift_and_log_scale(x, self.made.context_terms(context))
        log_prob = gaussian_log_prob(x, shift, log_scale, scale_map=self.scale_map)
        return log_prob if log_det is None else log_prob + log_det
