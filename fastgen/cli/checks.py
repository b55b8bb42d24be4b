"""Settings against the keys there are: unknown ones refused, values as the types of their keys, ranges kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import UserError
from .keys import nearest, shown
from .settings import Setting, Settings
from .values import Mismatch, convert

T = TypeVar("T")


def checked(settings: Settings, known: Mapping[str, Any]) -> Settings:
    """The settings with their values as the annotations in `known` ask. Raises UserError, naming the place and the key."""
    converted: Settings = {}
    for key, (value, origin) in settings.items():
        if key not in known:
            raise UserError(f"{origin}: {shown(key)}: unknown key{_suggestion(key, known)}")
        try:
            converted[key] = Setting(convert(value, known[key]), origin)
        except Mismatch as error:
            raise UserError(f"{origin}: {shown(key)}: {error}") from error
    return converted


def _suggestion(key: str, known: Mapping[str, Any]) -> str:
    table, _, name = key.rpartition(".")
    elsewhere = [k for k in known if k.rpartition(".")[2] == name]
    if elsewhere:
        return f"; did you mean {shown(elsewhere[0])}?"
    prefix = f"{table}." if table else ""
    return nearest(name, [k.removeprefix(prefix) for k in known if k.startswith(prefix)])


def in_range(settings: Settings, key: str, least: int, most: int) -> None:
    """Raises UserError for a number below `least` or above `most`."""
    found = settings[key].value if key in settings else None
    if found is not None and not least <= found <= most:
        raise UserError(f"{settings[key].origin}: {shown(key)}: expected {least} to {most}, found {found}")


def table(settings: Settings, name: str) -> dict[str, Any]:
    """The values of a table by their keys."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): s.value for key, s in settings.items() if key.startswith(prefix)}


def made(make: Callable[..., T], settings: Settings, name: str, **values: Any) -> T:
    """What `make` makes of a table's values. Its complaint about one is reported with the place that one was given at."""
    try:
        return make(**values)
    except (ValueError, TypeError) as error:
        raise UserError(placed(settings, name, str(error))) from error


def placed(settings: Settings, name: str, message: str) -> str:
    """A message `key: expected ...` about a table, with the place the key was given at."""
    key = f"{name}.{message.partition(':')[0]}"
    place = f"{settings[key].origin}: " if key in settings else ""
    return f"{place}[{name}] {message}"
