"""Pyro: masked layers and networks, the inverse of affine autoregressive transforms, planar and radial transforms.

Pyro calls the map from noise to data forward: the density of data takes the inverse, a pass of the network per feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from pyro.distributions import transforms
from pyro.distributions.conditional import ConditionalTransform
from pyro.nn import auto_reg_nn
from torch import Tensor, nn

from ..ops import ScaleMap, planar, radial
from .accelerated import Accelerated, swap, why_left
from .activations import activation_of
from .beside import Beside
from .conditions import changed, hooked, ordinary
from .linear import FastMaskedLinear
from .masks import read_network
from .network import Call, Planned, affine_scale_map, close, interleaved, parameter


class MaskedLinear(FastMaskedLinear, auto_reg_nn.MaskedLinear):  # type: ignore[misc]
    covers = auto_reg_nn.MaskedLinear


class _Network(NamedTuple):
    planned: Planned
    split: Beside
    inner: list[nn.Module]
    # Whether the library's inverse, feature after feature of its permutation, meets each after those it depends on.
    in_order: bool


class FastNetwork(Accelerated):
    """A whole network in one call. Its outputs come in blocks, all features' shifts before their scales."""

    reads = ("mask", "f", "permutation")
    inside = True

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        layers = list(_layers(module))
        if any(type(layer) not in (auto_reg_nn.MaskedLinear, MaskedLinear) for layer in layers):
            return "layers of another class"
        if layers[0].mask.is_meta:
            return "it is on the meta device"
        if activation_of(module.f) is None:
            return "an activation that fastgen does not know"
        if module.context_dim and module.skip_layer is not None:
            return "a context through skip connections"
        reasons = (changed(part) for part in module.modules())
        return next((reason for reason in reasons if reason), None)

    def mismatch(self) -> str | None:
        if self.derived() is None:
            return "masks of no autoregressive network"
        return None if _agrees(self) else "its outputs differ from what fastgen expects of its class"

    def _derive(self) -> _Network:
        module: Any = self
        layers, features, activation = list(module.layers), module.input_dim, activation_of(module.f)
        if activation is None:
            raise ValueError(f"f: expected an activation that fastgen knows, found {module.f}")
        masks = [layer.mask for layer in layers]
        split = Beside.of(masks[0], features, context_first=True)
        masks[0] = split.columns(masks[0])[0]
        skip = module.skip_layer
        read = read_network(
            [*masks[:-1], interleaved(masks[-1], features)],
            [activation] * (len(layers) - 1) + ["identity"],
            outputs=module.output_multiplier,
            direct=None if skip is None else interleaved(skip.mask, features),
        )
        order = torch.tensor(read.network.layers[0].in_degrees)[module.permutation.cpu()]
        inner = [part for part in module.modules() if part is not module]
        rows = interleaved(torch.arange(len(masks[-1]), device=masks[0].device), features)
        planned = Planned.of(read, layers, masks[0].device, rows, rows)
        return _Network(planned, split, inner, bool((order.diff() > 0).all()))

    def call(self, x: Tensor, context: Tensor | None, *, always: bool = False) -> Call | None:
        """What one fused call takes; None where the library's own code has to run, or is faster unless `always`."""
        state = self.derived()
        if state is None or not (always or state.planned.pays(x)) or hooked(state.inner):
            return None
        weight = parameter(state.planned.layers[0], "weight")
        if x.dim() == 0 or x.shape[-1] != state.split.features or not ordinary(weight, x, context):
            return None
        call = state.split.call(state.planned, context)
        skip = self.skip_layer  # type: ignore[attr-defined]
        return call if call is None or skip is None else call._replace(params=[*call.params, parameter(skip, "weight")])

    def _run(self, x: Tensor, context: Tensor | None) -> Any:
        """What the network answers with; None where the library's own code has to run."""
        call, module = self.call(x, context), self
        if call is None:
            return None
        blocks = call.outputs(x).movedim(-1, -2)
        count, is_flat, slices = module.count_params, module.all_ones, module.param_slices  # type: ignore[attr-defined]
        if count == 1:
            return blocks.squeeze(-2) if blocks.shape[-2] == 1 else blocks
        return blocks.unbind(-2) if is_flat else tuple(blocks[..., s, :] for s in slices)


class ConditionalAutoRegressiveNN(FastNetwork, auto_reg_nn.ConditionalAutoRegressiveNN):
    covers = auto_reg_nn.ConditionalAutoRegressiveNN

    def forward(self, x: Tensor, context: Tensor) -> Any:
        found = self._run(x, context) if _expands(context, x) else None
        return super().forward(x, context) if found is None else found


class AutoRegressiveNN(FastNetwork, auto_reg_nn.AutoRegressiveNN):
    covers = auto_reg_nn.AutoRegressiveNN

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        found = self._run(x, None)
        return super().forward(x) if found is None else found


class AffineAutoregressive(Accelerated, transforms.AffineAutoregressive):
    """Both directions at the price of one pass.

    `_cached_log_scale` is one number a row, their sum, as whose sum it is read: (..., 1).
    """

    covers = transforms.AffineAutoregressive
    reads = ()

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.stable:
            return "its stable variant, whose shift depends on its scale"
        reason = _network_left(_unbound(module.arn)[0])
        if reason is not None or not _is_known(module.log_scale_min_clip, module.log_scale_max_clip):
            return reason or "a scale that fastgen does not know"
        return changed(module)

    def _call(self, x: Tensor) -> Tensor:
        call = self._fused(x, not torch.compiler.is_compiling())
        if call is None:
            return super()._call(x)
        y, log_det = call.affine(x, self._scale_map)
        self._cached_log_scale = log_det.unsqueeze(-1)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        # The library starts from zeros of the default dtype, and fails with another.
        call = self._fused(y, True) if y.dtype == torch.get_default_dtype() else None
        if call is None or not _unbound(self.arn)[0].derived().in_order:
            return super()._inverse(y)
        x, log_det = call.affine_inverse(y, self._scale_map)
        self._cached_log_scale = -log_det.unsqueeze(-1)
        return x

    @property
    def _scale_map(self) -> ScaleMap:
        return _scale_map(self.log_scale_min_clip, self.log_scale_max_clip)

    def _fused(self, x: Tensor, always: bool) -> Call | None:
        """What one fused call takes; None where the library's own code has to run."""
        network, context = _unbound(self.arn)
        if not isinstance(network, FastNetwork) or hooked((network,)):
            return None
        if context is not None and not _expands(context, x):
            return None
        call = network.call(x, context, always=always)
        return None if call is None or call.planned.network.outputs != 2 else call


class _Conditional(ConditionalTransform):
    """First among its bases, gives a class the layout of the library's, without which no `__class__` can be set."""


class ConditionalAffineAutoregressive(_Conditional, Accelerated, transforms.ConditionalAffineAutoregressive):
    """What it makes of a context is accelerated."""

    covers = transforms.ConditionalAffineAutoregressive
    reads = ()

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return _network_left(module.nn) or changed(module)

    def condition(self, context: Tensor) -> Any:
        transform = super().condition(context)
        if type(transform) is AffineAutoregressive.covers:
            swap(transform, AffineAutoregressive)
        return transform


class Planar(Accelerated, transforms.Planar):
    covers = transforms.Planar

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module)

    def _call(self, x: Tensor) -> Tensor:
        bias, u, w = self.bias, self.u, self.w
        if x.dim() == 0 or not u.shape == w.shape == x.shape[-1:] or bias.shape != (1,) or not ordinary(x, u, w, bias):
            return super()._call(x)
        y, log_det = planar(x, u[None], w[None], bias)
        self._cached_logDetJ = log_det
        return y


class Radial(Accelerated, transforms.Radial):
    covers = transforms.Radial

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        return changed(module)

    def _call(self, x: Tensor) -> Tensor:
        centre, alpha, beta = self.x0, self.alpha_prime, self.beta_prime
        if x.dim() == 0 or centre.shape != x.shape[-1:] or not alpha.shape == beta.shape == (1,):
            return super()._call(x)
        if not ordinary(x, centre, alpha, beta):
            return super()._call(x)
        y, log_det = radial(x, centre[None], nn.functional.softplus(alpha).log(), beta)
        self._cached_logDetJ = log_det
        return y


ACCELERATED = (
    MaskedLinear,
    ConditionalAutoRegressiveNN,
    AutoRegressiveNN,
    AffineAutoregressive,
    ConditionalAffineAutoregressive,
    Planar,
    Radial,
)


def _layers(network: Any) -> Iterator[Any]:
    yield from network.layers
    if network.skip_layer is not None:
        yield network.skip_layer


def _unbound(network: Any) -> tuple[Any, Tensor | None]:
    """A transform's network and the context that `condition` has bound to it."""
    if type(network) is partial and not network.args and list(network.keywords) == ["context"]:
        return network.func, network.keywords["context"]
    return network, None


def _network_left(network: Any) -> str | None:
    if isinstance(network, FastNetwork):
        return changed(network)
    fast = {c.covers: c for c in (ConditionalAutoRegressiveNN, AutoRegressiveNN)}.get(type(network))
    reason = "a network of another class" if fast is None else why_left(network, fast)
    return None if reason is None else f"its network is left: {reason}"


def _expands(context: Any, x: Tensor) -> bool:
    """Whether a context is expanded to the batch of x."""
    if not isinstance(context, Tensor) or context.dim() == 0 or context.dim() > x.dim():
        return False
    pairs = zip(reversed(context.shape[:-1]), reversed(x.shape[:-1]), strict=False)
    return all(a in (1, b) for a, b in pairs)


@torch.no_grad()
def _agrees(network: Any) -> bool:
    """Asks a network and its class for the same outputs: another version of the library may compute something else."""
    weight = network.layers[0].weight
    rows = torch.linspace(-2, 2, 3).to(weight)[:, None]
    context, x = network.context_dim, (rows + torch.arange(network.input_dim).to(weight)).sin()
    given = [x, (rows + torch.arange(context).to(weight)).cos()] if isinstance(network, ConditionalAutoRegressiveNN) else [x]
    found, expected = network.forward(*given), network.covers.forward(network, *given)
    return close(*([t] if isinstance(t, Tensor) else t for t in (found, expected)))


@cache
def _scale_map(low: float, high: float) -> ScaleMap:
    return ScaleMap("clamp_straight", lo=low, hi=high)


@cache
def _is_known(low: float, high: float) -> bool:
    """Asks the library's transform for what it makes of a network's outputs."""

    def transform(shift: Tensor, raw: Tensor) -> Any:
        network = partial(lambda _: (shift, raw))
        network.permutation = torch.arange(shift.shape[-1])  # type: ignore[attr-defined]
        return transforms.AffineAutoregressive(network, low, high)

    def forward(x: Tensor, shift: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        t = transform(shift, raw)
        return (y := t(x)), t.log_abs_det_jacobian(x, y)

    def inverse(y: Tensor, shift: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        t = transform(shift, raw)
        return (x := t.inv(y)), -t.log_abs_det_jacobian(x, y)

    return affine_scale_map(forward, inverse, 2, [_scale_map(low, high)]) is not None
