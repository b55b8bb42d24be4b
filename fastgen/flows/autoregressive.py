"""The masked autoregressive transform."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..nn import MADE
from ..ops import ScaleMap, affine_autoregressive, autoregressive_inverse, gaussian_log_prob
from ..reference.autoregressive_inverse import FORMS
from .transform import Transform

# Scales between 1/1000 and 1000: wide enough for data, and a wild network output cannot overflow.
SCALE_MAP = ScaleMap("soft_clip", c=math.log(1000))

# What is not for the user to choose of the network.
FIXED: dict[str, Any] = {"outputs": 2, "inputs": 1, "masks": 1}


class MaskedAutoregressiveTransform(Transform):
    """z_i = (x_i - mu_i) e^{-s_i}, with mu_i and s_i from a MADE of the features before i.

    Papamakarios et al. 2017, "Masked Autoregressive Flow for Density Estimation", equations 3 and 4. Both directions
    are exact and differentiable, and cost about one pass of the network each.

    Args:
        features: D.
        scale_map: from the network's output to s: a ScaleMap, or the keyword arguments of one.
        form: what the inverse does: "multiply", as above; or "divide", z_i = x_i e^{s_i} + mu_i, as other libraries have it.
        options: those of `fastgen.nn.MADE`, `outputs`, `inputs` and `masks` excepted.

    Attributes:
        config: keyword arguments, as JSON knows them, that build the same transform again.
    """

    def __init__(
        self, features: int, *, scale_map: ScaleMap | Mapping[str, Any] = SCALE_MAP, form: str = "multiply", **options: Any
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form: expected one of {', '.join(FORMS)}, found {form!r}")
        self.form = form
        self.scale_map = scale_map if isinstance(scale_map, ScaleMap) else ScaleMap(**scale_map)
        self.made = MADE(features, **FIXED, **options)

    @property
    def config(self) -> dict[str, Any]:
        made = {name: value for name, value in self.made.config.items() if name not in FIXED}
        config = {**made, "scale_map": dataclasses.asdict(self.scale_map)}
        return config if self.form == "multiply" else {**config, "form": self.form}

    def _shift_and_log_scale(self, x: Tensor, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        # Under autocast the network answers in half precision; the data stays what it is.
        shift, log_scale = self.made.evaluate(x, terms).to(x.dtype).unbind(-1)
        return shift, log_scale

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(x, self.made.context_terms(context))
        divide = self.form == "divide"
        return affine_autoregressive(x, shift, log_scale, inverse=divide, scale_map=self.scale_map, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        made = self.made
        terms = made.context_terms(context)
        network, plan = made.masked(0, z.device)
        return autoregressive_inverse(
            z,
            network,
            made.params,
            form=self.form,
            scale_map=self.scale_map,
            context_terms=None if terms is None else terms.to(z.dtype),
            log_det=log_det,
            plan=plan,
        )

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        if self.form == "divide":
            return super().normal_log_prob(x, context, log_det=log_det)
        shift, log_scale = self._shift_and_log_scale(x, self.made.context_terms(context))
        log_prob = gaussian_log_prob(x, shift, log_scale, scale_map=self.scale_map)
        return log_prob if log_det is None else log_prob + log_det
