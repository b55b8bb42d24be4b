"""nflows: masked layers and networks, affine autoregressive and coupling transforms, diagonal Gaussian bases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from nflows.distributions import normal
from nflows.transforms import autoregressive, base, coupling, made, permutations
from torch import Tensor

from ..ops import ScaleMap, gaussian_log_prob
from .accelerated import NOT_COVERED, Accelerated, why_left
from .chain import Part, Permutation, one_by_one, one_node
from .conditions import changed, hooked, ordinary
from .coupling import Split
from .linear import FastMaskedLinear
from .made import FastAffine, FastMADE, Parts
from .network import affine_scale_map


class MaskedLinear(FastMaskedLinear, made.MaskedLinear):
    covers = made.MaskedLinear


class MADE(FastMADE, made.MADE):
    covers = made.MADE
    parts = Parts((made.MaskedLinear, MaskedLinear), made.MaskedFeedforwardBlock, made.MaskedResidualBlock)
    activates_first = activates_context = True


class MaskedAffineAutoregressiveTransform(FastAffine, autoregressive.MaskedAffineAutoregressiveTransform):
    covers = autoregressive.MaskedAffineAutoregressiveTransform
    made = MADE


PERMUTATIONS = (permutations.Permutation, permutations.RandomPermutation, permutations.ReversePermutation)


class CompositeTransform(Accelerated, base.CompositeTransform):
    """Affine autoregressive transforms in a row, and the permutations between them, as one node of the graph."""

    covers = base.CompositeTransform
    reads = ()

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        fast = MaskedAffineAutoregressiveTransform
        parts = (part for part in module._transforms if isinstance(part, fast.covers))
        if not any(isinstance(part, fast) or why_left(part, fast) is None for part in parts):
            return NOT_COVERED
        return changed(module)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if inputs.dim() != 2 or not inputs.is_cpu or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return super().forward(inputs, context)
        modules, y, total = list(self._transforms), inputs, inputs.new_zeros(len(inputs))
        while modules:
            parts = _first_parts(modules, y, context)
            if any(part.tensors for part in parts):
                y, log_det = one_node(y, parts) or one_by_one(y, parts)
                del modules[: len(parts)]
            else:
                y, log_det = modules.pop(0)(y, context)
            total += log_det
        return y, total


def _first_parts(modules: Iterable[Any], x: Tensor, context: Tensor | None) -> list[Part]:
    """What those modules are of a chain for x that come before the first that is no part of one."""
    parts: list[Part] = []
    for module in modules:
        part = _part(module, x, context)
        if part is None:
            break
        parts.append(part)
    return parts


def _part(module: Any, x: Tensor, context: Tensor | None) -> Part | None:
    if hooked((module,)):
        return None
    if type(module) in PERMUTATIONS:
        columns = module._permutation
        return Part(Permutation(columns)) if module._dim == 1 and columns.shape == x.shape[1:] else None
    found = module.call(x, context) if isinstance(module, MaskedAffineAutoregressiveTransform) else None
    return None if found is None else found[0].part(x, found[1])


class _Split(NamedTuple):
    split: Split
    scale_map: ScaleMap


class FastCoupling(Accelerated):
    """A coupling transform: the features that its mask names are mapped, given the others."""

    reads = ("identity_features", "transform_features")

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.transform_features.is_meta:
            return "it is on the meta device"
        if module.unconditional_transform is not None:
            return "a transform of the other features"
        if not 0 < module.num_transform_features < module.features:
            return "a mask that splits nothing"
        return changed(module) or (None if cls._scale_map(module) else "a scale that fastgen does not know")

    @staticmethod
    def _scale_map(module: Any) -> ScaleMap | None:
        raise NotImplementedError

    def _derive(self) -> _Split:
        module: Any = self
        where = module.transform_features
        return _Split(Split.of(module.features, where, where.device), self._scale_map(module) or ScaleMap())

    def _couple(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor] | None:
        """The transform of x or its inverse; None where the library's own code has to run."""
        module: Any = self
        state = self.derived()
        if state is None or x.dim() not in (2, 4) or x.shape[1] != module.features or not ordinary(x):
            return None
        params = module.transform_net(state.split.passed(x), context)
        expected = (x.shape[0], module._transform_dim_multiplier() * module.num_transform_features, *x.shape[2:])
        if params.shape != expected or not ordinary(x, params):
            return None
        return self._mapped(x, params, state, inverse)

    def _mapped(self, x: Tensor, params: Tensor, state: _Split, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self._couple(inputs, context, inverse=False)
        return super().forward(inputs, context) if found is None else found  # type: ignore[misc]

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self._couple(inputs, context, inverse=True)
        return super().inverse(inputs, context) if found is None else found  # type: ignore[misc]


class AffineCouplingTransform(FastCoupling, coupling.AffineCouplingTransform):
    covers = coupling.AffineCouplingTransform

    @staticmethod
    def _scale_map(module: Any) -> ScaleMap | None:
        def params(shift: Tensor, raw: Tensor) -> Tensor:
            return torch.cat((shift, raw), 1)

        return affine_scale_map(
            lambda x, shift, raw: module._coupling_transform_forward(x, params(shift, raw)),
            lambda y, shift, raw: module._coupling_transform_inverse(y, params(shift, raw)),
            module.num_transform_features,
        )

    def _mapped(self, x: Tensor, params: Tensor, state: _Split, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, raw = params.chunk(2, 1)
        return state.split.affine(x, shift, raw, state.scale_map, inverse=inverse)


class AdditiveCouplingTransform(FastCoupling, coupling.AdditiveCouplingTransform):
    covers = coupling.AdditiveCouplingTransform

    @staticmethod
    def _scale_map(module: Any) -> ScaleMap:
        return ScaleMap()

    def _mapped(self, x: Tensor, params: Tensor, state: _Split, inverse: bool) -> tuple[Tensor, Tensor]:
        return state.split.additive(x, params, inverse=inverse)


class StandardNormal(Accelerated, normal.StandardNormal):
    covers = normal.StandardNormal

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module) or (None if len(module._shape) == 1 else "no vectors")

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if inputs.shape[1:] != self._shape or not ordinary(inputs):
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs)


class DiagonalNormal(Accelerated, normal.DiagonalNormal):
    covers = normal.DiagonalNormal

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module) or (None if len(module._shape) == 1 else "no vectors")

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        mean, log_scale = self.mean_, self.log_std_
        if inputs.shape[1:] != self._shape or not ordinary(inputs, mean, log_scale):
            return super()._log_prob(inputs, context)
        return gaussian_log_prob(inputs, mean, log_scale)


ACCELERATED = (
    MaskedLinear,
    MADE,
    MaskedAffineAutoregressiveTransform,
    CompositeTransform,
    AffineCouplingTransform,
    AdditiveCouplingTransform,
    StandardNormal,
    DiagonalNormal,
)
