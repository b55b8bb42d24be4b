"""normflows: masked layers and networks, its autoregressive flow (whose density is the slow direction), couplings, planar
and radial flows, the diagonal Gaussian base."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from normflows.distributions import base
from normflows.flows import planar as planar_flow
from normflows.flows import radial as radial_flow
from normflows.flows.affine import autoregressive, coupling
from normflows.nets import made
from torch import Tensor

from ..ops import ScaleMap, affine_autoregressive, gaussian_log_prob, planar, radial
from .accelerated import Accelerated
from .conditions import changed, ordinary
from .coupling import Split
from .linear import FastMaskedLinear
from .made import FastAffine, FastMADE, Parts


class MaskedLinear(FastMaskedLinear, made.MaskedLinear):
    covers = made.MaskedLinear


class MADE(FastMADE, made.MADE):
    covers = made.MADE
    parts = Parts((made.MaskedLinear, MaskedLinear), made.MaskedFeedforwardBlock, made.MaskedResidualBlock)
    activates_first = activates_context = False


class MaskedAffineAutoregressive(FastAffine, autoregressive.MaskedAffineAutoregressive):
    covers = autoregressive.MaskedAffineAutoregressive
    made = MADE


def _negative_log_sigmoid(raw: Tensor) -> Tensor:
    return -F.logsigmoid(raw + 2)


# On CPU the gradient of coefficients that lie side by side costs what the fused map gains: a step of RealNVP, 1024 x 64, took
# 1.04 times as long (bench/accelerate.py). With gradients the library's own code runs there.
GRADIENTS_AS_THEY_ARE = True


# By `scale_map` what is done to a network's output before, and the map of that to a log-scale.
_SCALES: dict[str, tuple[Callable[[Tensor], Tensor] | None, ScaleMap]] = {
    "exp": (None, ScaleMap()),
    "sigmoid": (_negative_log_sigmoid, ScaleMap()),
    "sigmoid_inv": (None, ScaleMap("sigmoid")),
}


class AffineCoupling(Accelerated, coupling.AffineCoupling):
    covers = coupling.AffineCoupling

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if not module.scale:
            return "additive: one addition is all there is"
        return changed(module) or (None if module.scale_map in _SCALES else "a scale that fastgen does not know")

    def _couple(self, z: Any, *, inverse: bool) -> tuple[list[Tensor], Tensor] | None:
        z1, z2 = z
        if GRADIENTS_AS_THEY_ARE and torch.is_grad_enabled() and not z2.is_cuda:
            return None
        if not self.scale or self.scale_map not in _SCALES or z2.dim() < 2 or not ordinary(z2, z1):
            return None
        param = self.param_map(z1)
        if param.shape != (z2.shape[0], 2 * z2.shape[1], *z2.shape[2:]) or not ordinary(z2, param):
            return None
        before, scale_map = _SCALES[self.scale_map]
        raw = param[:, 1::2] if before is None else before(param[:, 1::2])
        rows = (t.flatten(1) for t in (z2, param[:, 0::2], raw))
        y, log_det = affine_autoregressive(*rows, inverse=not inverse, scale_map=scale_map)
        return [z1, y.view(z2.shape)], log_det

    def forward(self, z: Any) -> tuple[list[Tensor], Tensor]:
        found = self._couple(z, inverse=False)
        return super().forward(z) if found is None else found

    def inverse(self, z: Any) -> tuple[list[Tensor], Tensor]:
        found = self._couple(z, inverse=True)
        return super().inverse(z) if found is None else found


class MaskedAffineFlow(Accelerated, coupling.MaskedAffineFlow):
    covers = coupling.MaskedAffineFlow
    reads = ("b",)

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.b.is_meta:
            return "it is on the meta device"
        if module.b.dim() != 2 or not ((module.b == 0) | (module.b == 1)).all():
            return "a mask that is none of vectors"
        return changed(module)

    def _derive(self) -> Split:
        transformed = (self.b[0] == 0).nonzero().flatten()
        return Split.of(self.b.shape[1], transformed, self.b.device)

    def _couple(self, z: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor] | None:
        split = self.derived()
        if split is None or z.dim() != 2 or z.shape[1:] != self.b.shape[1:] or not ordinary(z, self.b):
            return None
        masked = self.b * z
        shift, raw = self.t(masked), self.s(masked)
        if not shift.shape == raw.shape == z.shape or not ordinary(z, shift, raw):
            return None
        return split.affine(z, shift, raw, ScaleMap(), inverse=inverse)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        found = self._couple(z, inverse=False)
        return super().forward(z) if found is None else found

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        found = self._couple(z, inverse=True)
        return super().inverse(z) if found is None else found


class Planar(Accelerated, planar_flow.Planar):
    covers = planar_flow.Planar

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.act != "tanh":
            return f"the activation {module.act}"
        return changed(module) or (None if module.w.dim() == module.u.dim() == 2 else "no vectors")

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u, w, b = self.u, self.w, self.b
        if z.dim() != 2 or not u.shape == w.shape == (1, z.shape[1]) or b.shape != (1,) or not ordinary(z, u, w, b):
            return super().forward(z)
        return planar(z, u, w, b)


class Radial(Accelerated, radial_flow.Radial):
    covers = radial_flow.Radial

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module) or (None if module.z_0.dim() == 2 else "no vectors")

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self.z_0, self.alpha, self.beta
        if z.dim() != 2 or centre.shape != (1, z.shape[1]) or not ordinary(z, centre, alpha, beta):
            return super().forward(z)
        # Where alpha is 0 its gradient is, as that of the absolute value.
        log_alpha = alpha.abs().clamp_min(torch.finfo(alpha.dtype).tiny).log()
        return radial(z, centre, log_alpha, beta)


class DiagGaussian(Accelerated, base.DiagGaussian):
    covers = base.DiagGaussian

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module) or (None if module.n_dim == 1 else "no vectors")

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        loc, log_scale = self.loc, self.log_scale
        if z.dim() != 2 or z.shape[1:] != loc.shape[1:] or not ordinary(z, loc, log_scale):
            return super().log_prob(z, context)
        if self.temperature is not None:
            log_scale = log_scale + math.log(self.temperature)
        return gaussian_log_prob(z, loc, log_scale)


ACCELERATED = (
    MaskedLinear,
    MADE,
    MaskedAffineAutoregressive,
    AffineCoupling,
    MaskedAffineFlow,
    Planar,
    Radial,
    DiagGaussian,
)
