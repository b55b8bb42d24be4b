"""The transforms and bases that a configuration can name, and the way from there to the object and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..nn.named import description_of, kind_of
from .base import Distribution, StandardNormal
from .bounds import Bounds
from .elementwise import Dequantize, Logit, Standardise, UnitInterval
from .logistic import StandardLogistic
from .mixture import MixtureOfNormals
from .normal import ConditionalDiagonalNormal, DiagonalNormal
from .permutation import Permutation
from .transform import Transform
from .uniform import Uniform

PREPROCESSING: dict[str, type[Transform]] = {
    kind.__name__: kind for kind in (Logit, Permutation, Standardise, UnitInterval, Bounds, Dequantize)
}

BASES: dict[str, type[Distribution]] = {
    kind.__name__: kind
    for kind in (
        StandardNormal,
        DiagonalNormal,
        ConditionalDiagonalNormal,
        MixtureOfNormals,
        Uniform,
        StandardLogistic,
    )
}


def preprocessing(transform: Transform | Mapping[str, Any]) -> Transform:
    """The transform itself, or one of PREPROCESSING: its name under "transform", and its arguments."""
    if isinstance(transform, Transform):
        return transform
    kind, options = kind_of(transform, "preprocess", "transform", PREPROCESSING)
    return kind(**options)


def described(transform: Transform) -> dict[str, Any]:
    """What `preprocessing` makes the same transform from. Raises TypeError for a transform of one's own."""
    return description_of(transform, "preprocess", "transform", PREPROCESSING)


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
        kind, own = kind_of({"base": "StandardNormal"} if base is None else base, "base", "base", BASES)
        sizes = {"features": features, **({"context_features": context_features} if kind.conditional else {})}
        base = kind(**{**sizes, **own, **options})
    if base.features not in (None, features):
        raise ValueError(f"base: expected {features} features, found {base.features}")
    return base.to(**options)


def described_base(base: Mapping[str, Any], **placed: Any) -> Distribution:
    """One of BASES: its name under "base", and its arguments, sizes included."""
    kind, options = kind_of(base, "base", "base", BASES)
    return kind(**options, **placed)


def describe_base(base: Distribution) -> dict[str, Any]:
    """What `build_base` makes the same base from. Raises TypeError for a base of one's own."""
    return description_of(base, "base", "base", BASES)
