"""The keys of a config: its tables, and the type of each key."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_type_hints

from ..data import FileOptions
from ..flows import Flow
from ..models import VAE
from ..nn import MADE
from ..train import TrainConfig
from ..train.models import MODELS

TABLES = ("model", "data", "training", "teacher")
TOP: dict[str, Any] = {"seed": int, "threads": int | None, "device": str | None}
# What a student learns from: a run or a checkpoint of one, and the rows of noise an epoch.
TEACHER: dict[str, Any] = {"run": str, "rows": int}
# What a data set that is known by name takes as well: the folder of its files, and whether its own labels are context.
NAMED_DATA: dict[str, Any] = {"dir": str | None, "labels": str | bool | None}
# What `build` gives a model out of its data, and what a run decides for all of it.
_GIVEN = {
    "features",
    "context_features",
    "standardise_context",
    "preprocess",
    "categories",
    "levels",
    "inputs",
    "outputs",
    "network",
    "context_activation",
    "device",
    "dtype",
}

# Options of these that are not passed on: each network of a flow has one mask, importance weights have no free bits.
_KEPT = {name: {"masks"} for name, kind in MODELS.items() if issubclass(kind, Flow)} | {"iwae": {"free_bits"}}


def known(model: str) -> dict[str, Any]:
    """Every key of a config for that model, as `table.key` or the bare key of the top, with its annotation."""
    return {
        **TOP,
        **_dotted("model", {"name": str, **_model(model)}),
        **data_keys(),
        **_dotted("training", _fields(TrainConfig)),
        **_dotted("teacher", TEACHER),
    }


def data_keys() -> dict[str, Any]:
    """The keys of the table [data], likewise."""
    return _dotted("data", {"source": str, "seed": int, **_fields(FileOptions), **NAMED_DATA})


def _dotted(table: str, keys: dict[str, Any]) -> dict[str, Any]:
    return {f"{table}.{key}": hint for key, hint in keys.items()}


def shown(key: str) -> str:
    """A key as a config file has it: `[table] key`."""
    table, _, name = key.rpartition(".")
    return f"[{table}] {name}" if table else name


def nearest(word: str, words: Iterable[str]) -> str:
    """`, did you mean ...?` with what is most like `word`; else all there is."""
    words = list(words)
    found = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {found[0]}?" if found else f"; expected one of {', '.join(words)}"


def _model(name: str) -> dict[str, Any]:
    """The options of a model: its own, and those of VAE or MADE where it passes on what it does not know."""
    kind = MODELS[name]
    own = _parameters(kind)
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(kind).parameters.values()):
        return own
    rest = _parameters(VAE if issubclass(kind, VAE) else MADE)
    return {**{key: hint for key, hint in rest.items() if key not in _KEPT.get(name, ())}, **own}


def _parameters(kind: type) -> dict[str, Any]:
    parameters = inspect.signature(kind, eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in _GIVEN}


def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
