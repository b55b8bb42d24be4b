"""zuko: masked layers and networks, affine autoregressive and coupling transforms.

A module of zuko builds a transform for every context, which calls the module's network later: so do these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions.transforms import Transform, _InverseTransform
from zuko import nn as networks
from zuko import transforms
from zuko.flows import autoregressive, coupling

from ..ops import ScaleMap
from .accelerated import Accelerated, why_left
from .activations import activation_of
from .beside import Beside
from .conditions import changed, hooked, ordinary
from .coupling import Split
from .linear import FastMaskedLinear
from .masks import ReadNetwork, read_network
from .network import Call, Planned, affine_scale_map, close, parameter


class MaskedLinear(FastMaskedLinear, networks.MaskedLinear):
    covers = networks.MaskedLinear


class _Wiring(NamedTuple):
    """The layers of a network, the activation after each, and which earlier sum is added to its own."""

    layers: list[Any]
    activations: list[str]
    residuals: list[int | None]

    @staticmethod
    def of(network: Any) -> _Wiring:
        """Raises ValueError where a network is not a chain of masked layers, activations and residual blocks."""
        wiring = _Wiring([], [], [])
        for part in network:
            wiring.add(part)
        if not wiring.layers or wiring.activations[-1] != "identity":
            raise ValueError("network: expected a layer at its end")
        return wiring

    def add(self, part: Any) -> None:
        if type(part) in (networks.MaskedLinear, MaskedLinear):
            self.layers.append(part)
            self.activations.append("identity")
            self.residuals.append(None)
            return
        if not self.layers or self.activations[-1] != "identity":
            raise ValueError(f"network: expected a layer before {type(part).__name__}")
        if type(part) is networks.Residual:
            stream = len(self.layers) - 1
            for inner in part:
                self.add(inner)
            if len(self.layers) == stream + 1 or self.activations[-1] != "identity" or self.residuals[-1] is not None:
                raise ValueError("network: expected a layer at the end of a residual block")
            self.residuals[-1] = stream
        else:
            name = activation_of(part)
            if name is None:
                raise ValueError(f"network: expected an activation that fastgen knows, found {part}")
            self.activations[-1] = name


class _Network(NamedTuple):
    planned: Planned
    split: Beside
    inner: list[nn.Module]


class MaskedMLP(Accelerated, networks.MaskedMLP):
    """A whole network in one call. Inputs that its outputs could not be told apart by are a context."""

    covers = networks.MaskedMLP
    inside = True

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        try:
            layers, _, _ = _Wiring.of(module)
        except ValueError:
            return "layers or activations that fastgen does not know"
        if layers[0].mask.is_meta:
            return "it is on the meta device"
        reasons = (changed(part) for part in module.modules())
        return next((reason for reason in reasons if reason), None)

    def mismatch(self) -> str | None:
        state = self.derived()
        if state is None:
            return "masks of no autoregressive network"
        return None if _agrees(self) else "its outputs differ from what fastgen expects of its class"

    def _derive(self) -> _Network:
        wiring = _Wiring.of(self)
        masks = [layer.mask for layer in wiring.layers]
        read = _read(wiring, masks)
        split = Beside.of(masks[0], read.network.features, context_first=False)
        inner = [module for module in self.modules() if module is not self]
        return _Network(Planned.of(read, wiring.layers, masks[0].device), split, inner)

    def call(self, x: Tensor, context: Tensor | None, *, always: bool = False) -> Call | None:
        """What one fused call takes; None where the library's own code has to run, or is faster unless `always`."""
        state = self.derived()
        if state is None or not (always or state.planned.pays(x)) or hooked(state.inner):
            return None
        weight = parameter(state.planned.layers[0], "weight")
        if x.dim() == 0 or x.shape[-1] != state.split.features or not ordinary(weight, x, context):
            return None
        return state.split.call(state.planned, context)

    def forward(self, x: Tensor) -> Tensor:
        state = self.derived()
        width = 0 if state is None else state.split.features + state.split.context
        if x.dim() == 0 or x.shape[-1] != width or not state.planned.pays(x):
            return super().forward(x)
        own, context = state.split.columns(x) if state.split.context else (x, None)
        call = self.call(own, context)
        return super().forward(x) if call is None else call.outputs(own).flatten(-2)


class _Fused(Transform):
    """Before a transform of the library for one context: what its module computes in one go, where that allows it."""

    def __init__(self, module: Any, context: Tensor | None, option: Any) -> None:
        super().__init__(partial(module.meta, context), option)  # type: ignore[call-arg, arg-type]
        self._affine = partial(module.affine, context=context)

    def _call(self, x: Tensor) -> Tensor:
        found = self._affine(x, inverse=False)
        return super()._call(x) if found is None else found[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        found = self._affine(x, inverse=False)
        return super().log_abs_det_jacobian(x, y) if found is None else found[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self._affine(x, inverse=False)
        return super().call_and_ladj(x) if found is None else found  # type: ignore[misc]

    def _inverse(self, y: Tensor) -> Tensor:
        found = self._affine(y, inverse=True)
        return super()._inverse(y) if found is None else found[0]

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse and its log|det|."""
        found = self._affine(y, inverse=True)
        if found is not None:
            return found
        x = super()._inverse(y)
        return x, -super().log_abs_det_jacobian(x, y)

    @property
    def inv(self) -> Transform:
        if self._inv is None:
            self._inv = _Inverse(self)
        return self._inv


class _Inverse(_InverseTransform):
    def call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._inv.inverse_and_ladj(y)  # type: ignore[union-attr]


# As the library shows them.
_Inverse.__name__ = "Inverse"


class AutoregressiveTransform(_Fused, transforms.AutoregressiveTransform):
    """y = s x + t in one call of the network, and its inverse at that price."""


class CouplingTransform(_Fused, transforms.CouplingTransform):
    """One operation for all that follows the network."""


class _Affine(NamedTuple):
    scale_map: ScaleMap
    # Whether the library's passes invert the transform, and not only some of its features.
    is_exact: bool


class MaskedAutoregressiveTransform(Accelerated, autoregressive.MaskedAutoregressiveTransform):
    covers = autoregressive.MaskedAutoregressiveTransform
    reads = ("mask", "univariate", "shapes", "passes")
    inside = True

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        network = module.hyper
        if not isinstance(network, MaskedMLP):
            reason = why_left(network, MaskedMLP) if type(network) is MaskedMLP.covers else "a network of another class"
            if reason is not None:
                return f"its network is left: {reason}"
        return changed(module) or changed(network) or (None if _scale_map(module) else UNKNOWN)

    def mismatch(self) -> str | None:
        return None if self.derived() else "a network that is not of its features"

    def _derive(self) -> _Affine | None:
        scale_map, network = _scale_map(self), self.hyper
        state = network.derived() if isinstance(network, MaskedMLP) else None
        if scale_map is None or state is None or state.planned.network.outputs != 2:
            return None
        features = state.split.features
        return _Affine(scale_map, self.passes >= features or self.passes >= _depth(_Wiring.of(network), features))

    def affine(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor] | None:
        """The transform of x or its inverse, with log|det|; None where the library's own code has to run."""
        state, network = self.derived(), self.hyper
        if state is None or not isinstance(network, MaskedMLP) or hooked([network]) or (inverse and not state.is_exact):
            return None
        if not _fits(x, context):
            return None
        call = network.call(x, context, always=inverse or not torch.compiler.is_compiling())
        if call is None:
            return None
        run = call.affine_inverse if inverse else call.affine
        return run(x, state.scale_map)

    def forward(self, c: Tensor | None = None) -> Transform:
        return AutoregressiveTransform(self, c, self.passes)


class _Coupling(NamedTuple):
    split: Split
    scale_map: ScaleMap


class GeneralCouplingTransform(Accelerated, coupling.GeneralCouplingTransform):
    covers = coupling.GeneralCouplingTransform
    reads = ("mask", "univariate", "shapes")

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.mask.is_meta:
            return "it is on the meta device"
        return changed(module) or (None if _scale_map(module) else UNKNOWN)

    def _derive(self) -> _Coupling | None:
        scale_map, mask = _scale_map(self), self.mask
        return (
            None if scale_map is None else _Coupling(Split.of(len(mask), (~mask).nonzero().flatten(), mask.device), scale_map)
        )

    def affine(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor] | None:
        """The transform of x or its inverse, with log|det|; None where the library's own code has to run."""
        state = self.derived()
        if state is None or x.dim() == 0 or x.shape[-1] != len(self.mask) or not ordinary(x, context):
            return None
        if not _fits(x, context):
            return None
        rows = x.reshape(-1, x.shape[-1])
        transformed = int(state.split.mask.sum())
        seen = state.split.passed(rows).reshape(*x.shape[:-1], x.shape[-1] - transformed)
        if context is not None:
            seen = torch.cat((seen, context.expand(*x.shape[:-1], -1)), -1)
        params = self.hyper(seen)
        if params.shape != (*x.shape[:-1], 2 * transformed) or not ordinary(x, params):
            return None
        shift, raw = params.reshape(len(rows), transformed, 2).unbind(-1)
        y, log_det = state.split.affine(rows, shift, raw, state.scale_map, inverse=inverse)
        return y.view(x.shape), log_det.view(x.shape[:-1])

    def forward(self, c: Tensor | None = None) -> Transform:
        return CouplingTransform(self, c, self.mask)


ACCELERATED = (MaskedLinear, MaskedMLP, MaskedAutoregressiveTransform, GeneralCouplingTransform)

UNKNOWN = "a univariate transform that is none of fastgen's affine ones"


def _read(wiring: _Wiring, masks: list[Tensor]) -> ReadNetwork:
    """The network with as many features as can be: those of its inputs whose outputs do not depend on themselves."""
    outputs, inputs = masks[-1].shape[0], masks[0].shape[1]
    for features in (f for f in range(inputs, 0, -1) if outputs % f == 0):
        own = [masks[0][:, :features], *masks[1:]]
        try:
            return read_network(own, wiring.activations, outputs=outputs // features, residuals=wiring.residuals)
        except ValueError:
            continue
    raise ValueError("masks: expected those of an autoregressive network")


def _depth(wiring: _Wiring, features: int) -> int:
    """How many passes of a network it takes until a change of the first feature has reached the last."""
    sums: list[Tensor] = []
    for layer, residual in zip(wiring.layers, wiring.residuals, strict=True):
        mask = layer.mask.detach().cpu() != 0
        seen = (mask.float() @ sums[-1].float()) > 0 if sums else mask[:, :features]
        sums.append(seen if residual is None else seen | sums[residual])
    depends = sums[-1].view(features, -1, features).any(1)
    depth, reached = 0, torch.zeros(features, dtype=torch.bool)
    while not reached.all():
        reached, depth = ~(depends & ~reached).any(1), depth + 1
    return depth


def _fits(x: Tensor, context: Tensor | None) -> bool:
    """Whether a context comes to the batch of x by being expanded, and there is a batch: without rows the library fails."""
    if x.numel() == 0 or context is None:
        return x.numel() > 0
    if context.dim() == 0 or context.dim() > x.dim():
        return False
    pairs = zip(reversed(context.shape[:-1]), reversed(x.shape[:-1]), strict=False)
    return all(a in (1, b) for a, b in pairs)


def _scale_map(module: Any) -> ScaleMap | None:
    """That of the univariate transforms of a module; None where they are none of fastgen's affine ones."""
    if [tuple(shape) for shape in module.shapes] != [(), ()]:
        return None
    try:
        return _scale_map_of(module.univariate)
    except Exception:  # a transform of other parameters: whatever it raises, it is not known
        return None


@lru_cache(maxsize=8)
def _scale_map_of(univariate: Callable[[Tensor, Tensor], Transform]) -> ScaleMap | None:
    def forward(x: Tensor, shift: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return _with_log_det(univariate(shift, raw), x)

    def inverse(y: Tensor, shift: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return _with_log_det(univariate(shift, raw).inv, y)

    return affine_scale_map(forward, inverse, 2)


def _with_log_det(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    y = transform(x)
    return y, transform.log_abs_det_jacobian(x, y).sum(-1)


@torch.no_grad()
def _agrees(network: Any) -> bool:
    """Asks a network and its class for the same outputs: another version of the library may compute something else."""
    weight = next(_weights(network))
    x = (torch.linspace(-2, 2, 3).to(weight)[:, None] + torch.arange(weight.shape[1]).to(weight)).sin()
    return close([network.forward(x)], [network.covers.forward(network, x)])


def _weights(network: Any) -> Iterator[Tensor]:
    return (layer.weight for layer in _Wiring.of(network).layers)
