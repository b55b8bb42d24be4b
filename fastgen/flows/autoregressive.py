"""The masked autoregressive transform."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..nn import MADE
from ..ops import AutoregressiveBlock, ScaleMap, autoregressive_inverse, masked_autoregressive, masked_autoregressive_log_prob
from ..reference.autoregressive_inverse import FORMS
from .transform import MaskedBlock, Transform, hooked

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

    def _block(self, x: Tensor, context: Tensor | None) -> MaskedBlock:
        terms = self.made.context_terms(context)
        if terms is not None:
            # Under autocast a linear layer answers in another dtype than x's.
            terms = terms.to(x.dtype)
        network, plan = self.made.masked(0, x.device)
        return MaskedBlock(AutoregressiveBlock(network, self.made.params, self.form, self.scale_map, terms), plan)

    def _call(self, operation: Callable, x: Tensor, context: Tensor | None, log_det: Tensor | None) -> Any:
        (network, params, form, scale_map, terms), plan = self._block(x, context)
        options = {"form": form, "scale_map": scale_map, "context_terms": terms, "log_det": log_det, "plan": plan}
        return operation(x, network, params, **options)

    def masked_block(self, x: Tensor, context: Tensor | None, *, inverse: bool = False) -> MaskedBlock | None:
        if inverse or type(self) is not MaskedAutoregressiveTransform or hooked(self):
            return None
        return self._block(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._call(masked_autoregressive, x, context, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._call(autoregressive_inverse, z, context, log_det)

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        return self._call(masked_autoregressive_log_prob, x, context, log_det)
