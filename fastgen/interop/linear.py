"""A masked linear layer of another library, alone: F.linear(x, weight * mask, bias)."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ..ops import MaskedLayer, MaskedNetwork, NetworkPlan, make_network_plan, masked_mlp
from .accelerated import Accelerated
from .conditions import changed, ordinary
from .masks import degrees_of_mask
from .network import parameter, pays

NO_DEGREES = "its mask is not that of degrees"


class Layer(NamedTuple):
    """A layer as a network of one; `mask` is a copy of what it was read from, where that has to be compared."""

    network: MaskedNetwork
    plan: NetworkPlan
    mask: Tensor | None = None


class FastMaskedLinear(Accelerated):
    """For a subclass of nn.Linear with a `mask` (out, in) that its weight is multiplied by."""

    mask: Tensor
    weight: nn.Parameter
    bias: nn.Parameter | None

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        if module.mask.is_meta:
            return "it is on the meta device"
        return changed(module)

    def mismatch(self) -> str | None:
        return None if self.derived() else NO_DEGREES

    def _derive(self) -> Layer | Literal[False]:
        return _layer_of(self.mask)

    def forward(self, x: Tensor) -> Tensor:
        weight = parameter(self, "weight")
        if not pays(x, weight.numel(), weight):
            return super().forward(x)  # type: ignore[misc]
        bias, layer = parameter(self, "bias"), self.derived()
        if not layer or x.dim() == 0 or x.shape[-1] != weight.shape[1] or not ordinary(weight, x, bias):
            return super().forward(x)  # type: ignore[misc]
        # As a network of one layer, whose output is not kept for the backward pass: libraries add to it in place.
        return masked_mlp(x, layer.network, [weight, bias], plan=layer.plan).squeeze(-1)


# By the numbers of a mask: the layers of a deep model have the same few.
_layers: dict[tuple[Any, ...], Layer | Literal[False]] = {}
LAYERS = 64


def _layer_of(mask: Tensor) -> Layer | Literal[False]:
    """A layer with this mask; False where that is not of degrees."""
    allowed = (mask.detach() != 0).cpu().contiguous()
    key = mask.device, mask.shape, sha256(allowed.numpy().tobytes()).digest()
    if key not in _layers:
        if len(_layers) >= LAYERS:
            _layers.clear()
        _layers[key] = _make_layer(mask)
    return _layers[key]


def _make_layer(mask: Tensor) -> Layer | Literal[False]:
    degrees = degrees_of_mask(mask)
    if degrees is None:
        return False
    inputs, outputs = (tuple(d.tolist()) for d in degrees)
    network = MaskedNetwork((MaskedLayer(inputs, outputs),))
    return Layer(network, make_network_plan(network, mask.device))
