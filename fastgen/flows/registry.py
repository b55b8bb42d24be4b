"""The transforms and bases that a configuration can name, and the way from there to the object and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .base import Distribution, StandardNormal
from .bounds import Bounds
from .elementwise import Logit, Standardise, UnitInterval
from .mixture import MixtureOfNormals
from .normal import ConditionalDiagonalNormal, DiagonalNormal
from .permutation import Permutation
from .transform import Transform
from .uniform import Uniform

PREPROCESSING: dict[str, type[Transform]] = {
    kind.__name__: kind for kind in (Logit, Permutation, Standardise, UnitInterval, Bounds)
}

BASES: dict[str, type[Distribution]] = {
    kind.__name__: kind for kind in (StandardNormal, DiagonalNormal, ConditionalDiagonalNormal, MixtureOfNormals, Uniform)
}

Kind = TypeVar("Kind", Transform, Distribution)


def preprocessing(transform: Transform | Mapping[str, Any]) -> Transform:
    """The transform itself, or one of PREPROCESSING: its name under "transform", and its arguments."""
    if isinstance(transform, Transform):
        return transform
    kind, options = _named(transform, "preprocess", "transform", PREPROCESSING)
    return kind(**options)


def described(transform: Transform) -> dict[str, Any]:
    """What `preprocessing` makes the same transform from. Raises TypeError for a transform of one's own."""
    return _described(transform, "preprocess", "transform", PREPROCESSING)


def build_base(
    base: Distribution | Mapping[str, Any] | None, features: int, context_features: int, **options: Any
) -> Distribution:
    """The base itself, or one of BASES: its name under "base", and its arguments, but the sizes; None: the standard normal.

    Args:
        features, context_features: D and F, the sizes that it is to have.
        options: device and dtype.

    Raises:
        ValueError, TypeError: an unknown name, arguments of no meaning, or a base of other sizes.
    """
    if not isinstance(base, Distribution):
        kind, own = _named({"base": "StandardNormal"} if base is None else base, "base", "base", BASES)
        sizes = {"features": features, **({"context_features": context_features} if kind.conditional else {})}
        base = kind(**{**sizes, **own, **options})
    if base.features not in (None, features):
        raise ValueError(f"base: expected {features} features, found {base.features}")
    return base.to(**options)


def describe_base(base: Distribution) -> dict[str, Any]:
    """What `build_base` makes the same base from. Raises TypeError for a base of one's own."""
    return _described(base, "base", "base", BASES)


def _named(description: Any, argument: str, key: str, kinds: Mapping[str, type[Kind]]) -> tuple[type[Kind], dict[str, Any]]:
    if not isinstance(description, Mapping):
        raise TypeError(f"{argument}: expected a {key} or a dict, found {type(description).__name__}")
    options = dict(description)
    name = options.pop(key, None)
    if name not in kinds:
        raise ValueError(f"{argument}: expected {key!r} to be one of {', '.join(kinds)}, found {name!r}")
    return kinds[name], options


def _described(item: Any, argument: str, key: str, kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    name = type(item).__name__
    if kinds.get(name) is not type(item):
        raise TypeError(f"{argument}: expected {key}s of {', '.join(kinds)} for a config, found {name}")
    return {key: name, **item.config}
