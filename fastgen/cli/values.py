"""What a key of a config may hold, by the annotation of what it sets."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

# TOML has no null.
NONE = "none"
_LISTS = (tuple, list, Sequence, Iterable)
_TABLES = (dict, Mapping)


class Mismatch(ValueError):
    """A value that is not of the annotated type; the message says what was expected and found."""


def convert(value: Any, hint: Any) -> Any:
    """A value of TOML or JSON as what the annotation `hint` asks for.

    Lists become tuples, one value a list of it, "none" None. Raises Mismatch. Classes that neither format can write are
    no alternative.
    """
    for alternative in _alternatives(hint):
        try:
            return _as(value, alternative)
        except _NoFit:
            pass
    raise Mismatch(f"expected {expected(hint)}, found {value!r}")


def expected(hint: Any) -> str:
    """What the annotation asks for, in words."""
    return " or ".join(dict.fromkeys(word for alternative in _alternatives(hint) if (word := _words(alternative))))


class _NoFit(Exception):
    pass


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        # None first, lest the word for it pass as a string.
        return sorted(get_args(hint), key=lambda alternative: alternative is not type(None))
    return [hint]


def _as(value: Any, hint: Any) -> Any:
    origin = get_origin(hint) or hint
    if hint is Any and _is_json(value):
        return value
    if hint is type(None) and (value is None or value == NONE):
        return None
    if hint is float:
        return _number(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    if origin is Literal and value in get_args(hint):
        return value
    if origin in _LISTS:
        return _items(value, get_args(hint))
    if origin in _TABLES and isinstance(value, dict) and _is_json(value):
        return value
    raise _NoFit


def _is_json(value: Any) -> bool:
    """Whether JSON can hold all of it: no nan, no inf, no date."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise _NoFit
    try:
        number = float(value)
    except OverflowError:
        raise _NoFit from None
    if not math.isfinite(number):
        raise _NoFit
    return number


def _items(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    fixed = _fixed(hints)
    values = value if isinstance(value, (list, tuple)) else [value]
    if fixed is not None and len(values) != fixed:
        raise _NoFit
    each = hints if fixed is not None else (hints[:1] or (Any,)) * len(values)
    try:
        return tuple(convert(value, hint) for value, hint in zip(values, each, strict=True))
    except Mismatch:
        raise _NoFit from None


def _fixed(hints: tuple[Any, ...]) -> int | None:
    """The length of a tuple of so many; None where any will do."""
    return len(hints) if len(hints) > 1 and Ellipsis not in hints else None


def _words(hint: Any) -> str:
    origin = get_origin(hint) or hint
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in _LISTS:
        hints = get_args(hint)
        count = _fixed(hints)
        items = expected(hints[0]) if hints else ""
        return f"a list of {count} values, each {items}" if count else f"a list, each of it {items}" if items else "a list"
    if origin in _TABLES:
        return "a table"
    named = {type(None): f'"{NONE}"', bool: "true or false", int: "a whole number", float: "a finite number", str: "a string"}
    return named.get(hint, "")
