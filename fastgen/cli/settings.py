"""Settings as they were given, each with the place it was given at: from a TOML file, `--set key=value` or an option."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..io import FileError
from .errors import UserError
from .keys import TABLES, TOP, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A config is a page of text; what is far longer is another file.
LARGEST = 1 << 20


class Setting(NamedTuple):
    """A value and the file or option it was given with."""

    value: Any
    origin: str


# By `table.key`, or the bare key of the top.
Settings = dict[str, Setting]


def read_toml(path: Path) -> Settings:
    """The settings of a TOML file. Raises FileError, naming it, where it is missing or no TOML, and UserError for its keys."""
    try:
        return flat(tomllib.loads(_text(path)), str(path))
    # Numbers of thousands of digits and nested lists without end are as little TOML as a wrong sign.
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: expected TOML, found: {error}") from error


def read_json(path: Path) -> Settings:
    """The settings of a run.json. Raises as `read_toml` does."""
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: expected JSON, found: {error}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return flat({key: value for key, value in content.items() if key in TABLES or key in TOP}, str(path))


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise FileError(f"{path}: expected a file to read, found: {error.strerror or error}") from error
    if len(content) > LARGEST:
        raise FileError(f"{path}: expected settings of at most {LARGEST} bytes, found more")
    return content.decode()


def flat(tables: Mapping[str, Any], origin: str) -> Settings:
    """Nested tables as flat settings. Raises UserError for a table that is not known, or a key outside its table."""
    settings: Settings = {}
    for name, value in tables.items():
        if name in TABLES and isinstance(value, dict):
            settings.update({f"{name}.{key}": Setting(entry, origin) for key, entry in value.items()})
        elif name in TOP:
            settings[name] = Setting(value, origin)
        else:
            raise UserError(f"{origin}: {_misplaced(name, value)}")
    return settings


def _misplaced(name: str, value: Any) -> str:
    if name in TABLES:
        return f"expected a table [{name}], found {name} = {value!r}"
    kind = "table" if isinstance(value, dict) else "key outside the tables"
    return f"{name}: unknown {kind}{nearest(name, (*TABLES, *TOP))}"


def parse(assignments: Iterable[str], known: Iterable[str]) -> Settings:
    """The settings of `--set key=value`. A bare key is one of the top, or one that a single table has.

    Values are TOML; what is none is a string. Raises UserError, naming the assignment.
    """
    settings: Settings = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"--set: expected key=value, found {assignment!r}")
        settings[_full(key.strip(), list(known))] = Setting(_value(value.strip()), f"--set {assignment}")
    return settings


def _full(key: str, known: list[str]) -> str:
    if key in known or "." in key:
        return key
    full = [name for name in known if name.endswith(f".{key}")]
    if len(full) > 1:
        raise UserError(f"--set {key}: expected a key of one table, found {' and '.join(full)}")
    if not full:
        bare = {name.rpartition(".")[2] for name in known}
        raise UserError(f"--set {key}: expected a known key{nearest(key, sorted(bare))}")
    return full[0]


def _value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break would smuggle in a second key.
    return found["value"] if len(found) == 1 else text
