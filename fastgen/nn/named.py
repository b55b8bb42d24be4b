"""Objects that a configuration names: from their description to the object's kind and arguments, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def kind_of(description: Any, argument: str, key: str, kinds: Mapping[str, type[Kind]]) -> tuple[type[Kind], dict[str, Any]]:
    """The kind that a description names under `key`, and the arguments it gives.

    Raises TypeError for what is no description, ValueError for an unknown name; `argument` is what they name.
    """
    if not isinstance(description, Mapping):
        raise TypeError(f"{argument}: expected a {key} or a dict, found {type(description).__name__}")
    options = dict(description)
    name = options.pop(key, None)
    if name not in kinds:
        raise ValueError(f"{argument}: expected {key!r} to be one of {', '.join(kinds)}, found {name!r}")
    return kinds[name], options


def description_of(item: Any, argument: str, key: str, kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    """What `kind_of` finds the item's kind and arguments in. Raises TypeError for one that is not of these kinds."""
    name = type(item).__name__
    if kinds.get(name) is not type(item):
        raise TypeError(f"{argument}: expected {key}s of {', '.join(kinds)} for a config, found {name}")
    return {key: name, **item.config}
