"""Networks with room for a context: conditioners of couplings and embeddings of contexts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..reference import ACTIVATIONS, activation_name
from .checks import check_counts, check_widths
from .context import context_terms

# Activations of what a layer has just given, which nothing else reads: in its place where their derivative needs no more
# than their result.
AFTER_LAYER = {**ACTIVATIONS, "relu": torch.relu_, "tanh": torch.tanh_, "sigmoid": torch.sigmoid_}


class _Network(nn.Module):
    """An activation, and the linear map of a context that is added to what the first layer, of `width`, gives."""

    def __init__(self, width: int, activation: str, context_features: int, placed: dict[str, Any]) -> None:
        super().__init__()
        check_counts(0, context_features=context_features)
        self.activation = activation_name(activation)
        self.context = nn.Linear(context_features, width, bias=False, **placed) if context_features else None

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments, as JSON knows them, that build the same network again; its state_dict holds all numbers."""
        context = 0 if self.context is None else self.context.in_features
        return {"activation": self.activation, "context_features": context}


class _Residual(_Network):
    """A first layer, blocks of two and a last layer: x + outer(act(inner(act(x)))) each block, He et al. 2016."""

    def __init__(
        self,
        first: nn.Linear | nn.Conv2d,
        blocks: Iterable[tuple[nn.Module, nn.Module]],
        last: nn.Module,
        zero_init: bool,
        **options: Any,
    ) -> None:
        super().__init__(first.weight.shape[0], **options)
        self.first, self.last = first, last
        self.blocks = cast("Sequence[Sequence[nn.Module]]", nn.ModuleList(map(nn.ModuleList, blocks)))
        if zero_init:
            _zero(last)

    def _after_first(self, y: Tensor) -> Tensor:
        activation, after_layer = ACTIVATIONS[self.activation], AFTER_LAYER[self.activation]
        for inner, outer in self.blocks:
            y = y + outer(after_layer(inner(activation(y))))
        return self.last(y)


class MLP(_Network):
    """Linear layers with an activation between them.

    Args:
        in_features, out_features: at least 1.
        hidden_features: widths of the hidden layers; none makes it a linear map.
        activation: relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu or identity.
        context_features: F, the width of a context; 0 for none. Its linear map is added to what the first layer gives.
        zero_init: whether the last layer starts at zero, and with it the answer.

    Raises:
        ValueError: a width below 1, an unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: Sequence[int] = (),
        activation: str = "relu",
        context_features: int = 0,
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(1, in_features=in_features, out_features=out_features)
        for width in hidden_features:
            check_counts(1, hidden_features=width)
        placed: dict[str, Any] = {"device": device, "dtype": dtype}
        widths = (in_features, *hidden_features, out_features)
        super().__init__(widths[1], activation, context_features, placed)
        self.in_features, self.out_features = in_features, out_features
        layers = [nn.Linear(*ends, **placed) for ends in itertools.pairwise(widths)]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))
        if zero_init:
            # Without hidden layers the context reaches the answer directly.
            _zero(layers[-1], self.context if len(layers) == 1 else None)

    @property
    def config(self) -> dict[str, Any]:
        hidden = [layer.out_features for layer in self.layers[:-1]]
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return {**sizes, "hidden_features": hidden, **super().config}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (..., in_features) and context (..., F), its batch broadcastable to x's, -> (..., out_features).

        Raises ValueError or TypeError for a context that is missing, not expected, of another width, dtype or device.
        """
        activation = AFTER_LAYER[self.activation]
        first, *rest = self.layers
        terms = context_terms(self.context, context)
        y = first(x) if terms is None else first(x) + terms
        for layer in rest:
            y = layer(activation(y))
        return y


class ResidualMLP(_Residual):
    """A linear layer, residual blocks x + W2 act(W1 act(x) + b1) + b2 and a linear layer (pre-activation, He et al. 2016).

    Args:
        in_features, out_features: at least 1.
        hidden_features: the width, once for each block: all equal.
        activation, context_features, zero_init: as in `MLP`.

    Raises:
        ValueError, TypeError: a width below 1, no block or unequal ones, an unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: Sequence[int],
        activation: str = "relu",
        context_features: int = 0,
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(1, in_features=in_features, out_features=out_features)
        check_widths(hidden_features, residual=True)
        if not hidden_features:
            raise ValueError("hidden_features: expected at least one residual block, found none")
        width = hidden_features[0]
        placed: dict[str, Any] = {"device": device, "dtype": dtype}

        def layer(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, **placed)

        super().__init__(
            layer(in_features, width),
            [(layer(width, width), layer(width, width)) for _ in hidden_features],
            layer(width, out_features),
            zero_init,
            activation=activation,
            context_features=context_features,
            placed=placed,
        )
        self.in_features, self.out_features = in_features, out_features

    @property
    def config(self) -> dict[str, Any]:
        hidden = [self.first.out_features] * len(self.blocks)
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return {**sizes, "hidden_features": hidden, **super().config}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """As that of `MLP`."""
        terms = context_terms(self.context, context)
        y = self.first(x)
        return self._after_first(y if terms is None else y + terms)


class ConvNet(_Residual):
    """A convolution, residual blocks x + conv1x1(act(conv3x3(act(x)))) and a convolution; image sizes stay (zero padding).

    Args:
        channels_in, channels_out: at least 1.
        hidden_channels: the width of all layers between.
        blocks: how many residual blocks; each lets a pixel see one further.
        activation, context_features, zero_init: as in `MLP`. The context is the same for all pixels of an image.

    Raises:
        ValueError: a width or a number of blocks below 1, an unknown activation.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        hidden_channels: int = 64,
        blocks: int = 2,
        activation: str = "relu",
        context_features: int = 0,
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(1, channels_in=channels_in, channels_out=channels_out, hidden_channels=hidden_channels, blocks=blocks)
        placed: dict[str, Any] = {"device": device, "dtype": dtype}

        def layer(inputs: int, outputs: int, size: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, size, padding=size // 2, **placed)

        width = hidden_channels
        super().__init__(
            layer(channels_in, width, 3),
            [(layer(width, width, 3), layer(width, width, 1)) for _ in range(blocks)],
            layer(width, channels_out, 3),
            zero_init,
            activation=activation,
            context_features=context_features,
            placed=placed,
        )

    @property
    def config(self) -> dict[str, Any]:
        sizes = {"channels_in": self.first.in_channels, "channels_out": self.last.out_channels}
        return {**sizes, "hidden_channels": self.first.out_channels, "blocks": len(self.blocks), **super().config}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (..., channels_in, H, W) and context (..., F), its batch broadcastable to x's, -> (..., channels_out, H, W).

        Raises ValueError or TypeError for a context that is missing, not expected, of another width, dtype or device.
        """
        batch, terms = x.shape[:-3], context_terms(self.context, context)
        y = self.first(x.reshape(-1, *x.shape[-3:]))
        if terms is not None:
            y = (y.view(*batch, *y.shape[1:]) + terms[..., None, None]).reshape(y.shape)
        y = self._after_first(y)
        return y.view(*batch, *y.shape[1:])


@torch.no_grad()
def _zero(*modules: nn.Module | None) -> None:
    for module in modules:
        for parameter in () if module is None else module.parameters():
            parameter.zero_()
