"""MADE: a masked network whose outputs for a feature depend on the features before it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..ops import MaskedLayer, MaskedNetwork, NetworkPlan, make_network_plan, masked_mlp
from ..ops._autoregressive import check_autoregressive
from ..reference import ACTIVATIONS, activation_name
from .checks import check_counts, check_widths
from .context import context_terms
from .degrees import draw_seed, fan_in, feature_degrees, hidden_degrees, random_permutation
from .foreign import describe_network, described_network
from .linear import MaskedLinear
from .planned import Planned

# The last layer, and the last of each residual block, start at this fraction of the usual size: a flow starts near the
# identity and a density near the standard one, where gradients are tame, yet no gradient is zero.
SMALL_START = 0.01

# Networks in other orders, kept with their plans.
REORDERED = 64


class Reordered(NamedTuple):
    """One mask more over a MADE's weights: the degree of each feature, the network that they make and its plan."""

    degrees: Tensor
    network: MaskedNetwork
    plan: NetworkPlan


class MADE(Planned[tuple[NetworkPlan, ...]]):
    """A masked network: P outputs per feature, which depend on the features of lower degree and on the context only.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation". One call forward and one backward, through
    `fastgen.ops.masked_mlp`. With `masks`, several masks lie over one set of weights (its sections 4.2 and 4.3): each has a
    network and a plan of its own, made once.

    Args:
        features: D, at least 1.
        hidden_features: widths of the hidden layers; none makes the outputs masked linear maps of the features. With
            `residual`, each entry is a residual block and all are equal.
        context_features: F, the width of a context; 0 for none. It reaches every output, the first feature's too.
        outputs: P, at least 1.
        inputs: C, the columns that each feature has in x, at least 1: one-hot categories, say.
        activation: relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu or identity.
        order: the degree of each feature, a permutation of 1..D; or "natural" (1..D), "reversed" (D..1), "random".
        hidden_degrees: "spread" (equally over the degrees) or "random".
        direct: adds a masked linear map from the features to the outputs.
        residual: a first layer, then blocks x + W2 act(W1 act(x) + b1) + b2 (He et al. 2016, pre-activation).
        masks: how many, at least 1. With several, a random order and random hidden degrees are drawn for each; one of the
            two has to be random.
        context_activation: the activation of the context's linear map, which has a bias then; "identity": none of both.
        network: a network from elsewhere, as `network_of_masks` makes it, or its description: what it says of hidden layers,
            activations, order, degrees, direct connections and residual blocks is said by no other argument then.
        seed: what random orders and degrees follow; None draws one from torch's generator. Parameters are drawn from
            torch's generator always.

    Attributes:
        orders: of each mask, the degree of each feature: int64, (D,), on the CPU.
        networks: of each mask, the description of the network.
        degrees, network: those of the first mask.
        config: keyword arguments, as JSON knows them, that build the same network again.

    Raises:
        ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        features: int,
        *,
        hidden_features: Sequence[int] = (512, 512),
        context_features: int = 0,
        outputs: int = 2,
        inputs: int = 1,
        activation: str = "relu",
        order: str | Sequence[int] | Tensor = "natural",
        hidden_degrees: str = "spread",
        direct: bool = False,
        residual: bool = False,
        masks: int = 1,
        context_activation: str = "identity",
        network: MaskedNetwork | Mapping[str, Any] | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts(1, features=features, outputs=outputs, inputs=inputs, masks=masks)
        check_counts(0, context_features=context_features)
        check_widths(hidden_features, residual)
        self.context_activation = activation_name(context_activation)
        if network is not None:
            network = network if isinstance(network, MaskedNetwork) else described_network(network)
            _expect_fit(network, features, outputs, inputs, masks)
        random_order = isinstance(order, str) and order == "random"
        random_degrees = hidden_degrees == "random"
        if masks > 1 and not (random_order or (random_degrees and hidden_features)):
            raise ValueError(f"masks: expected 1 unless order or hidden_degrees is 'random', found {masks}")
        if seed is None and (random_order or random_degrees):
            seed = draw_seed()
        self.features, self.context_features, self.outputs, self.inputs = features, context_features, outputs, inputs
        self.config: dict[str, Any] = {
            "features": features,
            "hidden_features": list(hidden_features),
            "context_features": context_features,
            "outputs": outputs,
            "inputs": inputs,
            "activation": activation_name(activation),
            "order": order if isinstance(order, str) else feature_degrees(order, features, random.Random()).tolist(),
            "hidden_degrees": hidden_degrees,
            "direct": bool(direct),
            "residual": bool(residual),
            "masks": masks,
            "seed": seed,
        }
        if network is None:
            self.orders, self.networks = self._draw_masks(random.Random(seed))
        else:
            sizes = {name: self.config[name] for name in ("features", "context_features", "outputs", "inputs", "masks")}
            self.config = {**sizes, "network": describe_network(network)}
            self.orders, self.networks = (torch.tensor(network.layers[0].in_degrees[::inputs]),), (network,)
        if self.context_activation != "identity":
            self.config["context_activation"] = self.context_activation
        self.degrees, self.network = self.orders[0], self.networks[0]
        self._build(context_features, device, dtype)
        self._replan()

    def _draw_masks(self, rng: random.Random) -> tuple[tuple[Tensor, ...], tuple[MaskedNetwork, ...]]:
        orders, networks = [], []
        for mask in range(self.config["masks"]):
            orders.append(feature_degrees(self.config["order"], self.features, rng))
            networks.append(_network(self.config, orders[-1], _hidden(self.config, mask > 0, rng)))
        return tuple(orders), tuple(networks)

    def _build(self, context_features: int, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        def layer(inputs: Sequence[int], outputs: Sequence[int], strict: bool, **options: Any) -> MaskedLinear:
            degrees = torch.tensor(inputs), torch.tensor(outputs)
            return MaskedLinear(len(inputs), len(outputs), *degrees, strict=strict, device=device, dtype=dtype, **options)

        described = self.network.layers
        layers = [layer(d.in_degrees, d.out_degrees, d.strict, activation=d.activation) for d in described]
        self.layers = cast("Sequence[MaskedLinear]", nn.ModuleList(layers))
        inputs, outputs = described[0].in_degrees, described[-1].out_degrees
        self.direct = layer(inputs, outputs, True, bias=False) if self.network.direct else None
        first_width = len(described[0].out_degrees)
        self.context = (
            nn.Linear(context_features, first_width, bias=self.context_activation != "identity", device=device, dtype=dtype)
            if context_features
            else None
        )
        if len(self.networks) > 1:
            self._average_fan_in()
        self._start_small()

    @torch.no_grad()
    def _average_fan_in(self) -> None:
        """Initial sizes for the mean of the fan-ins of all masks: an output's mean variance over them is that with one."""
        layers = [*self.layers, *([] if self.direct is None else [self.direct])]
        for layer, *ends in zip(layers, *(_ends(network) for network in self.networks), strict=True):
            seen = [fan_in(inputs, outputs, layer.strict).double().clamp(min=1) for inputs, outputs in ends]
            ratio = (seen[0] / torch.stack(seen).mean(0)).sqrt().to(layer.weight)
            layer.weight.mul_(ratio[:, None])
            if layer.bias is not None:
                layer.bias.mul_(ratio)

    @torch.no_grad()
    def _start_small(self) -> None:
        ends = [
            layer for layer, described in zip(self.layers, self.network.layers, strict=True) if described.residual is not None
        ]
        # Without hidden layers the context reaches the outputs directly.
        context = self.context if len(self.layers) == 1 else None
        for layer in (*ends, self.layers[-1], self.direct, context):
            if layer is not None:
                for parameter in layer.parameters():
                    parameter.mul_(SMALL_START)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: int = 0) -> Tensor:
        """x (..., D C) and context (..., F), its batch broadcastable to x's, -> (..., D, P), under the mask of that number.

        x holds a feature's C columns in a row. Raises ValueError or TypeError for a mask there is not, and for a context that
        is missing, not expected, of another width, dtype or device.
        """
        return self.evaluate(x, self.context_terms(context), mask)

    def context_terms(self, context: Tensor | None) -> Tensor | None:
        """A context's part (..., H) of the first layer, which serves any number of calls of `evaluate`."""
        terms = context_terms(self.context, context)
        return terms if terms is None else ACTIVATIONS[self.context_activation](terms)

    def evaluate(self, x: Tensor, context_terms: Tensor | None, mask: int | Reordered = 0) -> Tensor:
        """The outputs (..., D, P) for x (..., D C) and what `context_terms` made of a context.

        mask: the number of a mask, or what `reordered` gave for x's device. Raises ValueError for one there is not.
        """
        network, plan = self.masked(mask, x.device)
        if context_terms is not None:
            # Under autocast a linear layer answers in another dtype than x's.
            context_terms = context_terms.to(x.dtype)
        return masked_mlp(x, network, self.params, context_terms=context_terms, plan=plan)

    def masked(self, mask: int | Reordered, device: torch.device) -> tuple[MaskedNetwork, NetworkPlan]:
        """The network under a mask and its plan for the device. Raises ValueError for a mask there is not."""
        if isinstance(mask, Reordered):
            return mask.network, mask.plan
        if 0 <= mask < len(self.networks):
            return self.networks[mask], self._plan_on(device)[mask]
        raise ValueError(f"mask: expected one of 0..{len(self.networks) - 1}, found {mask}")

    @property
    def params(self) -> list[Tensor | None]:
        """The flat list of parameters that operations take, see `fastgen.ops.MaskedNetwork`."""
        params: list[Tensor | None] = [p for layer in self.layers for p in layer.params]
        return params if self.direct is None else [*params, self.direct.weight]

    def reordered(self, degrees: Tensor, device: torch.device) -> Reordered:
        """The mask in which features have these degrees, a permutation of 1..D, and hidden units those of the first mask."""
        return _reordered(self.network, tuple(degrees.tolist()), self.inputs, device)

    def _make_plan(self, device: torch.device) -> tuple[NetworkPlan, ...]:
        return tuple(make_network_plan(network, device) for network in self.networks)

    def extra_repr(self) -> str:
        sizes = f"features={self.features}, context_features={self.context_features}, outputs={self.outputs}"
        return f"{sizes}, inputs={self.inputs}, masks={len(self.networks)}"


def _expect_fit(network: MaskedNetwork, features: int, outputs: int, inputs: int, masks: int) -> None:
    """Raises ValueError unless the network is one of an autoregressive model of these sizes."""
    check_autoregressive(network, outputs, inputs)
    if network.features != features * inputs or masks != 1:
        found = f"{network.features} with masks={masks}"
        raise ValueError(f"network: expected {features * inputs} inputs and one mask, found {found}")


def _hidden(config: Mapping[str, Any], shuffled: bool, rng: random.Random) -> list[Tensor]:
    """The degrees of every hidden layer; along a residual stream they are the same.

    shuffled: random ones come in no order. Were they sorted in every mask, a unit would have about the same degree in all.
    """
    features, kind, residual = config["features"], config["hidden_degrees"], config["residual"]
    lowest = 0 if config["context_features"] or features == 1 else 1

    def draw(width: int) -> Tensor:
        degrees = hidden_degrees(kind, width, lowest, features, rng)
        return degrees[random_permutation(width, rng)] if shuffled and kind == "random" else degrees

    widths = list(config["hidden_features"])
    if residual and widths:
        widths = widths[:1] * (1 + 2 * len(widths))
    hidden: list[Tensor] = []
    for i, width in enumerate(widths):
        on_stream = residual and i > 0 and i % 2 == 0
        hidden.append(hidden[0] if on_stream else draw(width))
    return hidden


def _network(config: Mapping[str, Any], degrees: Tensor, hidden: list[Tensor]) -> MaskedNetwork:
    outputs, residual = config["outputs"], config["residual"]
    ends = degrees.repeat_interleave(config["inputs"]), degrees.repeat_interleave(outputs)
    levels = [tuple(level.tolist()) for level in (ends[0], *hidden, ends[1])]
    layers = []
    for i in range(len(levels) - 1):
        last = i == len(hidden)
        # The last layer reads the residual stream as it is.
        active = not last and not (residual and i == len(hidden) - 1)
        source = i - 2 if residual and not last and i > 0 and i % 2 == 0 else None
        layers.append(MaskedLayer(levels[i], levels[i + 1], last, config["activation"] if active else "identity", source))
    return MaskedNetwork(tuple(layers), direct=config["direct"], outputs=outputs)


def _ends(network: MaskedNetwork) -> list[tuple[Tensor, Tensor]]:
    """The degrees of the inputs and the outputs of each layer, then of the direct connections where there are any."""
    ends = [(layer.in_degrees, layer.out_degrees) for layer in network.layers]
    if network.direct:
        ends.append((ends[0][0], ends[-1][1]))
    return [(torch.tensor(inputs), torch.tensor(outputs)) for inputs, outputs in ends]


# A network hashes as the object it is, so that a copied model's is another.
@lru_cache(maxsize=REORDERED)
def _reordered(network: MaskedNetwork, degrees: tuple[int, ...], inputs: int, device: torch.device) -> Reordered:
    order = torch.tensor(degrees)
    layers = list(network.layers)
    layers[0] = dataclasses.replace(layers[0], in_degrees=tuple(order.repeat_interleave(inputs).tolist()))
    layers[-1] = dataclasses.replace(layers[-1], out_degrees=tuple(order.repeat_interleave(network.outputs).tolist()))
    changed = dataclasses.replace(network, layers=tuple(layers))
    return Reordered(order, changed, make_network_plan(changed, device))
