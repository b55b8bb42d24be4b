"""The modules inside a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import distributions, nn

from .registry import LIBRARIES


def modules(model: Any) -> list[tuple[str, nn.Module]]:
    """Every module of a model with its name, each once, before those inside it.

    Raises TypeError for an object that is no module, no list of them and no distribution or transform.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    for prefix, root in _roots(model, ""):
        for name, module in root.named_modules(prefix=prefix):
            found.setdefault(id(module), (name, module))
    return list(found.values())


def _roots(model: Any, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, nn.Module):
        yield name, model
    elif isinstance(model, (list, tuple)):
        for i, part in enumerate(model):
            yield from _roots(part, f"{name}.{i}" if name else str(i))
    elif isinstance(model, distributions.TransformedDistribution):
        yield from _roots(model.base_dist, f"{name}.base_dist" if name else "base_dist")
        yield from _roots(list(model.transforms), f"{name}.transforms" if name else "transforms")
    elif isinstance(model, distributions.ComposeTransform):
        yield from _roots(list(model.parts), f"{name}.parts" if name else "parts")
    elif isinstance(model, distributions.transforms._InverseTransform):
        yield from _roots(model.inv, f"{name}.inv" if name else "inv")
    elif not isinstance(model, (distributions.Distribution, distributions.Transform)):
        raise TypeError(
            f"model: expected a torch.nn.Module, a list of them, or a distribution or transform of torch.distributions, "
            f"made with {', '.join(LIBRARIES)} or plain PyTorch, found {type(model).__module__}.{type(model).__qualname__}"
        )
