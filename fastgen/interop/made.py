"""The MADE that nflows and normflows share by descent: a first layer, blocks and a last layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_state

from ..ops import ScaleMap
from .accelerated import Accelerated, why_left
from .activations import activation_of
from .conditions import changed, hooked, hooks_of, ordinary
from .masks import read_network
from .network import Call, Planned, affine_scale_map, close, parameter


class Parts(NamedTuple):
    """The classes that a library builds its MADE of."""

    linear: tuple[type, ...]
    feedforward: type
    residual: type


class _State(NamedTuple):
    planned: Planned
    hooks: tuple[Any, ...]
    dropouts: list[Any]

    def is_watched(self) -> bool:
        """Whether a call of a module inside would do more than compute: hooks, or dropout in training."""
        if any(self.hooks) or module_state._has_any_global_hook():
            return True
        return any(dropout.training and dropout.p > 0 for dropout in self.dropouts)


class FastMADE(Accelerated):
    """A whole MADE in one call."""

    parts: ClassVar[Parts]
    # Whether a feed-forward network applies its activation after the first layer too, and to the context's part of it.
    activates_first: ClassVar[bool]
    activates_context: ClassVar[bool]
    reads = ("mask", "activation")
    inside = True

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        blocks = list(module.blocks)
        layers = list(_layers(module))
        if any(type(block) not in (cls.parts.feedforward, cls.parts.residual) for block in blocks):
            return "blocks of another class"
        if any(type(layer) not in cls.parts.linear for layer in layers):
            return "layers of another class"
        if layers[0].mask.is_meta:
            return "it is on the meta device"
        if any(getattr(block, "batch_norm", None) or getattr(block, "use_batch_norm", False) for block in blocks):
            return "batch-norm between its layers"
        if any(activation_of(block.activation) is None for block in blocks):
            return "an activation that fastgen does not know"
        if type(getattr(module, "preprocessing", None)) not in (nn.Identity, type(None)):
            return "a preprocessing of its own"
        if hasattr(module, "context_layer") and any(type(block) is cls.parts.residual for block in blocks):
            return "a context inside its residual blocks"
        inner = (changed(part) for part in _inner(module))
        return changed(module) or next((reason for reason in inner if reason), None)

    def mismatch(self) -> str | None:
        if self.derived() is None:
            return "masks of no autoregressive network"
        return None if _agrees(self) else "its outputs differ from what fastgen expects of its class"

    def _derive(self) -> _State:
        layers = list(_layers(self))
        masks = [layer.mask for layer in layers]
        outputs = masks[-1].shape[0] // masks[0].shape[1]
        degrees = [layer.degrees.cpu() for layer in layers]
        activations, residuals = self._wiring()
        read = read_network(
            masks,
            activations,
            outputs=outputs,
            residuals=residuals,
            degrees=[degrees[-1][::outputs], *degrees],
        )
        swap = torch.arange(masks[-1].shape[0], device=masks[0].device) ^ 1 if outputs == 2 else None
        planned = Planned.of(read, layers, masks[0].device, pairs=swap)
        return _State(planned, hooks_of(_inner(self)), [block.dropout for block in self.blocks])  # type: ignore[attr-defined]

    def _wiring(self) -> tuple[list[str], list[int | None]]:
        """Of every layer the activation after it, and which earlier sum is added to its own."""
        blocks: Any = list(self.blocks)  # type: ignore[attr-defined]
        residual = [type(block) is self.parts.residual for block in blocks]
        names = [_known(block.activation) for block in blocks]
        activations, residuals = ["identity"], [None]
        stream = 0
        for is_residual, name in zip(residual, names, strict=True):
            if is_residual:
                # The activation comes before each of the block's two layers.
                activations[-1] = name
                activations += [name, "identity"]
                residuals += [None, stream]  # type: ignore[list-item]
            else:
                activations.append(name)
                residuals.append(None)
            stream = len(activations) - 1
        if self.activates_first and not self.use_residual_blocks:  # type: ignore[attr-defined]
            activations[0] = _known(self.activation)  # type: ignore[attr-defined]
        return [*activations, "identity"], [*residuals, None]

    def call(self, x: Tensor, context: Tensor | None, *, always: bool = False) -> Call | None:
        """What one fused call takes; None where the library's own code has to run, or is faster unless `always`."""
        state = self.derived()
        if state is None or not (always or state.planned.pays(x)) or state.is_watched():
            return None
        weight = parameter(state.planned.layers[0], "weight")
        if x.dim() == 0 or x.shape[-1] != weight.shape[1] or not ordinary(weight, x, context):
            return None
        if context is None:
            return state.planned.call()
        if not hasattr(self, "context_layer") or context.dim() == 0 or context.shape[:-1] != x.shape[:-1]:
            return None
        terms = self.context_layer(context)
        return state.planned.call(self.activation(terms) if self.activates_context else terms)  # type: ignore[attr-defined]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        state = self._fastgen.state
        # First what costs least, of a state that may be stale: it is looked at again where it counts.
        call = None if state is not None and not state.planned.pays(inputs) else self.call(inputs, context)
        return super().forward(inputs, context) if call is None else call.outputs(inputs).flatten(-2)  # type: ignore[misc]


class FastAffine(Accelerated):
    """y = s x + t with s and t from a MADE of the features before, and its inverse at the price of one pass."""

    made: ClassVar[type[FastMADE]]
    reads = ("_epsilon",)

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        network = module.autoregressive_net
        if not isinstance(network, cls.made):
            known = type(network) is cls.made.covers
            reason = why_left(network, cls.made) if known else "a network of another class"
            if reason is not None:
                return f"its network is left: {reason}"
        return changed(module) or changed(network)

    def mismatch(self) -> str | None:
        return None if self.derived() else "a scale that fastgen does not know"

    def _derive(self) -> ScaleMap | None:
        return scale_map_of(self)

    def call(self, x: Tensor, context: Tensor | None, *, inverse: bool = False) -> tuple[Call, ScaleMap] | None:
        """What one fused call takes; None where the library's own code has to run."""
        network: Any = self.autoregressive_net  # type: ignore[attr-defined]
        if x.dim() != 2 or not isinstance(network, self.made) or hooked((network,)):
            return None
        scale_map = self.derived()
        if scale_map is None:
            return None
        call = network.call(x, context, always=inverse or not torch.compiler.is_compiling())
        return None if call is None else (call, scale_map)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self.call(inputs, context)
        if found is None:
            return super().forward(inputs, context)  # type: ignore[misc]
        call, scale_map = found
        return call.affine(inputs, scale_map)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self.call(inputs, context, inverse=True)
        if found is None:
            return super().inverse(inputs, context)  # type: ignore[misc]
        call, scale_map = found
        return call.affine_inverse(inputs, scale_map)


def _known(activation: Any) -> str:
    name = activation_of(activation)
    if name is None:
        raise ValueError(f"activation: expected one that fastgen knows, found {activation}")
    return name


def _layers(made: Any) -> Iterator[Any]:
    yield made.initial_layer
    for block in made.blocks:
        if hasattr(block, "linear_layers"):
            yield from block.linear_layers
        else:
            yield block.linear
    yield made.final_layer


def _inner(made: Any) -> Iterator[nn.Module]:
    """The modules that a fused call does not call."""
    yield from _layers(made)
    for block in made.blocks:
        yield block
        yield block.dropout
        if isinstance(block.activation, nn.Module):
            yield block.activation


@torch.no_grad()
def _agrees(made: Any) -> bool:
    """Asks a MADE and its class for the same outputs: another version of the library may compute something else."""
    weight = made.initial_layer.weight
    rows = torch.linspace(-2, 2, 3).to(weight)[:, None]
    x = (rows + torch.arange(weight.shape[1]).to(weight)).sin()
    context = (rows + torch.arange(made.context_layer.in_features).to(weight)).cos() if hasattr(made, "context_layer") else None
    dropouts = [(block.dropout, block.dropout.training) for block in made.blocks]
    try:
        for dropout, _ in dropouts:
            dropout.training = False
        return close([made.forward(x, context)], [made.covers.forward(made, x, context)])
    finally:
        for dropout, training in dropouts:
            dropout.training = training


def scale_map_of(module: Any) -> ScaleMap | None:
    """That of a transform of scales and shifts side by side, as its own formula shows; None where it is none of the known."""

    def params(shift: Tensor, raw: Tensor) -> Tensor:
        return torch.stack((raw, shift), -1).flatten(-2)

    return affine_scale_map(
        lambda x, shift, raw: module._elementwise_forward(x, params(shift, raw)),
        lambda y, shift, raw: module._elementwise_inverse(y, params(shift, raw)),
        module.features,
    )
