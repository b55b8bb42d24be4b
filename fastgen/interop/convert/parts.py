"""Parts of a flow, made of the numbers of another library's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...flows import (
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Composed,
    Coupling,
    DiagonalNormal,
    Distribution,
    Flow,
    Inverse,
    MaskedAutoregressiveTransform,
    Scaling,
    StandardNormal,
    Transform,
)
from ...nn import MLP, network_of_masks
from ...ops import MaskedNetwork, ScaleMap
from ...reference import ACTIVATIONS
from .. import activations


def refusal(layer: Any, why: str) -> TypeError:
    return TypeError(f"{type(layer).__name__}: {why}")


def activation_of(activation: Any, layer: Any) -> str:
    """The name of an activation, a function or a module. Raises TypeError where networks here do not know it."""
    name = activations.activation_of(activation)
    if name is None:
        found = getattr(activation, "__name__", type(activation).__name__)
        raise refusal(layer, f"expected an activation of {', '.join(ACTIVATIONS)}, found {found}")
    return name


class Linear(NamedTuple):
    """One linear layer: weight (out, in), bias (out,), the mask of the weight, what follows, and what is added before."""

    weight: Tensor
    bias: Tensor | None
    mask: Tensor | None = None
    activation: str = "identity"
    residual: int | None = None

    @classmethod
    def of(cls, layer: Any, activation: str = "identity", residual: int | None = None) -> Linear:
        return cls(layer.weight, layer.bias, getattr(layer, "mask", None), activation, residual)

    @property
    def masked(self) -> Tensor:
        # A number that the mask forbids may be infinite.
        return self.weight if self.mask is None else torch.where(self.mask != 0, self.weight, 0.0)

    def rows(self, order: Tensor) -> Linear:
        """With the outputs in another order."""
        bias, mask = (None if t is None else t[order] for t in (self.bias, self.mask))
        return self._replace(weight=self.weight[order], bias=bias, mask=mask)

    def context(self, chosen: slice) -> Linear:
        """The linear map of a context that is given as some of its inputs."""
        return self.columns(chosen)._replace(bias=None, activation="identity")

    def columns(self, chosen: slice | Tensor) -> Linear:
        """Of some of its inputs."""
        return self._replace(weight=self.weight[:, chosen], mask=None if self.mask is None else self.mask[:, chosen])


def blocked(features: int) -> Tensor:
    """Where pairs that lie side by side are to be found once they are two blocks."""
    return torch.arange(2 * features).view(features, 2).t().flatten()


@torch.no_grad()
def masked_autoregressive(
    layers: Sequence[Linear],
    *,
    scale_map: ScaleMap,
    direct: Linear | None = None,
    context: Linear | None = None,
) -> MaskedAutoregressiveTransform:
    """z = x e^s + t with t and s, side by side for each feature, from masked layers; `context` is added to the first's sum."""
    features = layers[0].weight.shape[1]
    orders = [torch.tensor(layer.out_degrees).argsort(stable=True) for layer in _network(layers, direct).layers[:-1]]
    # Operations are fast where the hidden units are in the order of their degrees.
    layers = [layer.rows(orders[i]) if i < len(orders) else layer for i, layer in enumerate(layers)]
    layers = [layer.columns(orders[i - 1]) if i else layer for i, layer in enumerate(layers)]
    if context is not None and orders:
        context = context.rows(orders[0])
    network = _network(layers, direct)
    weight = layers[0].weight
    transform = MaskedAutoregressiveTransform(
        features,
        form="divide",
        scale_map=scale_map,
        network=network,
        context_features=0 if context is None else context.weight.shape[1],
        context_activation="identity" if context is None else context.activation,
        device=weight.device,
        dtype=weight.dtype,
    )
    made = transform.made
    for ours, layer in zip(made.layers, layers, strict=True):
        fill(ours, layer)
    if direct is not None and made.direct is not None:
        fill(made.direct, direct)
    if context is not None and made.context is not None:
        fill(made.context, context)
    return transform


def _network(layers: Sequence[Linear], direct: Linear | None) -> MaskedNetwork:
    return network_of_masks(
        [_mask(layer) for layer in layers],
        activations=[layer.activation for layer in layers],
        residuals=[layer.residual for layer in layers],
        direct=None if direct is None else _mask(direct),
    )


def _mask(layer: Linear) -> Tensor:
    return torch.ones_like(layer.weight) if layer.mask is None else layer.mask


@torch.no_grad()
def fill(ours: Any, layer: Linear) -> None:
    """Copies the numbers of a layer into a module with weight and, maybe, bias."""
    ours.weight.copy_(layer.masked)
    if ours.bias is not None:
        ours.bias.copy_(torch.zeros_like(ours.bias) if layer.bias is None else layer.bias)


def mlp(layers: Sequence[Linear], owner: Any, context: Linear | None = None) -> MLP:
    """The network of these layers. Raises TypeError for activations that are not all the same."""
    *hidden, last = layers
    activations = {layer.activation for layer in hidden}
    if len(activations) > 1 or last.activation != "identity":
        raise refusal(owner, f"expected one activation between all layers, found {[layer.activation for layer in layers]}")
    network = MLP(
        layers[0].weight.shape[1],
        last.weight.shape[0],
        hidden_features=[layer.weight.shape[0] for layer in hidden],
        activation=activations.pop() if activations else "identity",
        context_features=0 if context is None else context.weight.shape[1],
        device=last.weight.device,
        dtype=last.weight.dtype,
    )
    for ours, layer in zip(network.layers, layers, strict=True):
        fill(ours, layer)
    if context is not None and network.context is not None:
        fill(network.context, context)
    return network


def sequential(modules: Iterable[nn.Module], linear: tuple[type, ...], owner: Any) -> list[Linear]:
    """The layers of linear modules with activations between them; dropout is left out.

    Raises TypeError for other modules, and two activations in a row.
    """
    layers: list[Linear] = []
    for module in modules:
        if isinstance(module, linear):
            layers.append(Linear.of(module))
        elif not isinstance(module, nn.Dropout):
            if not layers or layers[-1].activation != "identity":
                raise refusal(owner, f"expected linear layers with an activation after each, found {type(module).__name__}")
            layers[-1] = layers[-1]._replace(activation=activation_of(module, owner))
    if not layers:
        raise refusal(owner, "expected linear layers, found none")
    return layers


def coupling(mask: Tensor, conditioner: nn.Module, scale_map: ScaleMap | None) -> Coupling:
    """The affine coupling, z = x e^s + t where the mask is True; without a scale map the additive one."""
    if scale_map is None:
        return AdditiveCoupling(len(mask), mask, conditioner)
    return AffineCoupling(len(mask), mask, conditioner, scale_map=scale_map)


@torch.no_grad()
def normal(mean: Tensor, log_scale: Tensor, trained: bool) -> Distribution:
    """The diagonal normal with these (D,); the standard one where they are 0 and not trained."""
    placed: dict[str, Any] = {"device": mean.device, "dtype": mean.dtype}
    if not trained and not mean.any() and not log_scale.any():
        return StandardNormal(len(mean), **placed)
    base = DiagonalNormal(len(mean), **placed).requires_grad_(trained)
    base.mean.copy_(mean)
    base.log_scale.copy_(log_scale)
    return base


@torch.no_grad()
def scaling(log_scale: Tensor, shift: Tensor) -> Scaling:
    """z = x e^{log_scale} + shift with these (D,)."""
    ours = Scaling(len(shift), shift=True, device=shift.device, dtype=shift.dtype)
    for target, source in ((ours.log_scale, log_scale), (ours.shift, shift)):
        assert target is not None
        target.copy_(source)
    return ours


@torch.no_grad()
def batch_norm(
    log_scale: Tensor, shift: Tensor, running_mean: Tensor, running_var: Tensor, *, momentum: float, eps: float
) -> BatchNorm:
    """The batch norm with these numbers, (D,) each."""
    ours = BatchNorm(len(shift), momentum=momentum, eps=eps, device=shift.device, dtype=shift.dtype)
    pairs = (
        (ours.log_scale, log_scale),
        (ours.shift, shift),
        (ours.running_mean, running_mean),
        (ours.running_var, running_var),
    )
    for target, source in pairs:
        target.copy_(source)
    return ours


def converted(layers: Iterable[Any], convert: Callable[[Any], Sequence[Transform]], where: str) -> list[Transform]:
    """The transforms that layers become, one after the other; a TypeError names the layer by its place."""
    found: list[Transform] = []
    for i, layer in enumerate(layers):
        try:
            found += convert(layer)
        except TypeError as error:
            raise TypeError(f"{where}[{i}]: {error}") from None
    return found


def backwards(transforms: Sequence[Transform]) -> list[Transform]:
    """Noise to data as data to noise."""
    return [t.transform if isinstance(t, Inverse) else Inverse(t) for t in reversed(transforms)]


def assembled(base: Distribution, transforms: Sequence[Transform], like: Tensor, training: bool, **options: Any) -> Flow:
    flow = Flow(base, Composed(transforms), **options)
    return flow.to(device=like.device, dtype=like.dtype).train(training)


def unknown(layer: Any, supported: Mapping[type, Any]) -> TypeError:
    names = ", ".join(kind.__name__ for kind in supported)
    return refusal(layer, f"expected one of {names}")


def look_up(layer: Any, supported: Mapping[type, Callable[[Any], Any]]) -> Any:
    """What the converter of the layer's exact class makes of it. Raises TypeError where there is none."""
    if type(layer) not in supported:
        raise unknown(layer, supported)
    return supported[type(layer)](layer)
