"""MADE: a masked network whose outputs for a feature depend on the features before it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ops import MaskedLayer, MaskedNetwork, NetworkPlan, _check, make_network_plan, masked_mlp
from ..reference import activation_name
from .degrees import draw_seed, feature_degrees, hidden_degrees
from .linear import MaskedLinear
from .planned import Planned

# The last layer, and the last of each residual block, start at this fraction of the usual size: a flow starts near the
# identity and a density near the standard one, where gradients are tame, yet no gradient is zero.
SMALL_START = 0.01


class MADE(Planned[NetworkPlan]):
    """A masked network: P outputs per feature, which depend on the features of lower degree and on the context only.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation". One call forward and one backward, through
    `fastgen.ops.masked_mlp`.

    Args:
        features: D, at least 1.
        hidden_features: widths of the hidden layers; none makes the outputs masked linear maps of the features. With
            `residual`, each entry is a residual block and all are equal.
        context_features: F, the width of a context; 0 for none. It reaches every output, the first feature's too.
        outputs: P, at least 1.
        activation: relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu or identity.
        order: the degree of each feature, a permutation of 1..D; or "natural" (1..D), "reversed" (D..1), "random".
        hidden_degrees: "spread" (equally over the degrees) or "random".
        direct: adds a masked linear map from the features to the outputs.
        residual: a first layer, then blocks x + W2 act(W1 act(x) + b1) + b2 (He et al. 2016, pre-activation).
        seed: what random orders and degrees follow; None draws one from torch's generator. Parameters are drawn from
            torch's generator always.

    Attributes:
        degrees: int64, (D,), on the CPU: the degree of each feature.
        network: the description of the network.
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
        activation: str = "relu",
        order: str | Sequence[int] | Tensor = "natural",
        hidden_degrees: str = "spread",
        direct: bool = False,
        residual: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(features, hidden_features, context_features, outputs, residual)
        if seed is None and (hidden_degrees == "random" or (isinstance(order, str) and order == "random")):
            seed = draw_seed()
        rng = random.Random(seed)
        self.features, self.context_features, self.outputs = features, context_features, outputs
        self.degrees = feature_degrees(order, features, rng)
        self.config: dict[str, Any] = {
            "features": features,
            "hidden_features": list(hidden_features),
            "context_features": context_features,
            "outputs": outputs,
            "activation": activation_name(activation),
            "order": order if isinstance(order, str) else self.degrees.tolist(),
            "hidden_degrees": hidden_degrees,
            "direct": direct,
            "residual": residual,
            "seed": seed,
        }
        lowest = 0 if context_features or features == 1 else 1
        self.network = _network(
            self.degrees,
            _hidden(hidden_features, hidden_degrees, lowest, features, residual, rng),
            outputs,
            self.config["activation"],
            direct,
            residual,
        )
        self._build(context_features, device, dtype)
        self._replan()

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
            nn.Linear(context_features, first_width, bias=False, device=device, dtype=dtype) if context_features else None
        )
        self._start_small()

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

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (..., D) and context (..., F), its batch broadcastable to x's, -> (..., D, P).

        Raises ValueError or TypeError for a context that is missing, not expected, of another width, dtype or device.
        """
        return self.evaluate(x, self.context_terms(context))

    def context_terms(self, context: Tensor | None) -> Tensor | None:
        """A context's part (..., H) of the first layer, which serves any number of calls of `evaluate`."""
        if context is None and self.context is None:
            return None
        if context is None or self.context is None or context.dim() == 0 or context.shape[-1] != self.context_features:
            expected = f"shape (..., {self.context_features})" if self.context is not None else "None"
            raise ValueError(f"context: expected {expected}, found {None if context is None else tuple(context.shape)}")
        _check.floating(context, "context")
        if _check.autocast_dtype(context) is None:
            _check.like(context, "context", self.context.weight, "the weight")
        return self.context(context)

    def evaluate(self, x: Tensor, context_terms: Tensor | None) -> Tensor:
        """The outputs (..., D, P) for x (..., D) and what `context_terms` made of a context."""
        params: list[Tensor | None] = [p for layer in self.layers for p in (layer.weight, layer.bias)]
        if self.direct is not None:
            params.append(self.direct.weight)
        if context_terms is not None:
            # Under autocast a linear layer answers in another dtype than x's.
            context_terms = context_terms.to(x.dtype)
        return masked_mlp(x, self.network, params, context_terms=context_terms, plan=self._plan_on(x.device))

    def _make_plan(self, device: torch.device) -> NetworkPlan:
        return make_network_plan(self.network, device)

    def extra_repr(self) -> str:
        return f"features={self.features}, context_features={self.context_features}, outputs={self.outputs}"


def _check_sizes(features: int, hidden_features: Sequence[int], context_features: int, outputs: int, residual: bool) -> None:
    for name, value, least in (("features", features, 1), ("context_features", context_features, 0), ("outputs", outputs, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, found {value}")
    if not isinstance(hidden_features, Sequence):
        raise TypeError(f"hidden_features: expected a sequence of widths, found {hidden_features!r}")
    if any(width < 1 for width in hidden_features):
        raise ValueError(f"hidden_features: expected widths of at least 1, found {tuple(hidden_features)}")
    if residual and len(set(hidden_features)) > 1:
        raise ValueError(f"hidden_features: expected equal widths with residual blocks, found {tuple(hidden_features)}")


def _hidden(
    hidden_features: Sequence[int], kind: str, lowest: int, features: int, residual: bool, rng: random.Random
) -> list[Tensor]:
    """The degrees of every hidden layer; along a residual stream they are the same."""
    widths = list(hidden_features)
    if residual and widths:
        widths = widths[:1] * (1 + 2 * len(widths))
    hidden: list[Tensor] = []
    for i, width in enumerate(widths):
        on_stream = residual and i > 0 and i % 2 == 0
        hidden.append(hidden[0] if on_stream else hidden_degrees(kind, width, lowest, features, rng))
    return hidden


def _network(
    degrees: Tensor, hidden: list[Tensor], outputs: int, activation: str, direct: bool, residual: bool
) -> MaskedNetwork:
    levels = [tuple(level.tolist()) for level in (degrees, *hidden, degrees.repeat_interleave(outputs))]
    layers = []
    for i in range(len(levels) - 1):
        last = i == len(hidden)
        # The last layer reads the residual stream as it is.
        active = not last and not (residual and i == len(hidden) - 1)
        source = i - 2 if residual and not last and i > 0 and i % 2 == 0 else None
        layers.append(MaskedLayer(levels[i], levels[i + 1], last, activation if active else "identity", source))
    return MaskedNetwork(tuple(layers), direct=direct, outputs=outputs)
