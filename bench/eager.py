"""Any model of fastgen's in plain PyTorch: its definitions in place of kernels, W * M in place of masked networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar, cast

from torch import Tensor, nn

from fastgen import backends
from fastgen.flows import MaskedAutoregressiveTransform, Transform
from fastgen.nn import MADE, MaskedLinear
from fastgen.reference import affine_autoregressive

from .case import Setting
from .plain import mask_of, masked_chain
from .providers import compiled
from .steps import Candidate, value_and_gradients

F = TypeVar("F", bound=Callable[..., object])


class PlainMADE(nn.Module):
    """A MADE of one mask without context, residual and direct connections, W * M formed in every layer on every call."""

    def __init__(self, made: MADE) -> None:
        super().__init__()
        self.networks, self.network, self.features = made.networks, made.network, made.features
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(_plain_layer(layer) for layer in made.layers))
        for i, layer in enumerate(made.network.layers):
            self.register_buffer(f"mask_{i}", mask_of(layer).to(made.layers[0].weight))

    def context_terms(self, context: Tensor | None) -> None:
        return None

    def evaluate(self, x: Tensor, context_terms: Tensor | None, mask: int = 0) -> Tensor:
        params = [p for layer in self.layers for p in (layer.weight, layer.bias)]
        return masked_chain(x, self.network, params, list(self.buffers()))


def _plain_layer(layer: MaskedLinear) -> nn.Linear:
    weight, bias = layer.weight.detach(), layer.bias
    assert bias is not None
    plain = nn.Linear(layer.in_features, layer.out_features, device=weight.device, dtype=weight.dtype)
    plain.load_state_dict({"weight": weight, "bias": bias.detach()})
    return plain


class PlainAutoregressive(Transform):
    """A masked autoregressive transform from data to noise: a network and, apart from it, the affine map of its outputs."""

    def __init__(self, transform: MaskedAutoregressiveTransform) -> None:
        super().__init__()
        self.made, self.scale_map, self.divide = PlainMADE(transform.made), transform.scale_map, transform.form == "divide"

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, raw = self.made.evaluate(x, None).unbind(-1)
        return affine_autoregressive(x, shift, raw, inverse=self.divide, scale_map=self.scale_map, log_det=log_det)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of a model with networks of PyTorch, its parameters in the same order."""
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MaskedAutoregressiveTransform):
                setattr(parent, name, PlainAutoregressive(child))
            elif isinstance(child, MADE):
                setattr(parent, name, PlainMADE(child))
    return copied


def on_reference(function: F) -> F:
    """The function on fastgen's definitions, whatever its tensors are."""

    @wraps(function)
    def run(*arguments: object) -> object:
        with backends.use("reference"):
            return function(*arguments)

    return run  # type: ignore[return-value]


def candidates(model: nn.Module, method: str, x: Tensor, setting: Setting) -> dict[str, Candidate]:
    """Plain PyTorch and its compiler, each with a copy of the model of its own; the method gives the density of data."""
    plain = plain_copy(model)
    found = {"PyTorch": _candidate(plain, on_reference(getattr(plain, method)), x)}
    for name in compiled(getattr(plain, method), setting):
        own = plain_copy(model)
        found[name] = _candidate(own, on_reference(compiled(getattr(own, method), setting)[name]), x)
    return found


def truth(model: nn.Module, method: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The density in float64 plain PyTorch, and the gradients of its mean."""
    exact = plain_copy(model).double()
    return lambda x: value_and_gradients(list(exact.parameters()), on_reference(getattr(exact, method)), x)


def _candidate(model: nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Candidate:
    return Candidate(list(model.parameters()), log_prob, x)
