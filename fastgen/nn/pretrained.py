"""Models as folders: their numbers in a safetensors file, and the description that they are rebuilt from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .. import io

# Of the description, in every file that holds a model.
FORMAT = 2

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

# Whole numbers of a config that nothing grows with; and what any file may ask for.
NO_SIZES = ("seed", "levels", "samples")
SMALL = 4096

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(nn.Module):
    """A model that a folder can keep. A subclass has a `config`, the keyword arguments that build the same kind again.

    `device` and `dtype` are keyword arguments of every subclass besides.
    """

    # By name, the first of each: what a file can name, and nothing else.
    kinds: ClassVar[dict[str, type[Pretrained]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Pretrained.kinds.setdefault(cls.__name__, cls)

    @property
    def config(self) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__}: expected a model with a config")

    @classmethod
    def stacks_modules(cls, config: Mapping[str, Any]) -> bool:
        """Whether each of the `transforms` that a config counts is a module with tensors of its own."""
        return True

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes the folder `path`: `model.safetensors`, the numbers and the config they belong to, and `config.json`.

        Each file is written whole or not at all. No code is stored: loading needs the class under its name.

        Raises:
            TypeError: a part of one's own that a config cannot describe, or a class whose name another one has.
            FileError: a file cannot be written.
        """
        name = type(self).__name__
        if Pretrained.kinds.get(name) is not type(self):
            raise TypeError(f"{name}: expected a class whose name no other model has, to be found by it")
        description = {"format": FORMAT, "model": {"name": name, "config": self.config}}
        io.save(Path(path) / WEIGHTS, self.state_dict(), description)
        io.write_json(Path(path) / CONFIG, description)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Model:
        """The model that `save_pretrained` wrote, of the class it was, in evaluation mode. No code from the file is run.

        Args:
            path: the folder, or its `model.safetensors` alone.
            dtype: of its parameters; None: as saved.

        Raises:
            FileError: a file that is missing, damaged, altered or of a newer fastgen, or holds no model of this class.
            TypeError: a dtype that is not floating.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating one, found {dtype}")
        folder = Path(path)
        file = folder / WEIGHTS if folder.is_dir() else folder
        state, description = io.load(file, device)
        if folder.is_dir():
            _expect_same(folder / CONFIG, description)
        name, config = described_model(file, description)
        kind = Pretrained.kinds.get(name) if isinstance(name, str) else None
        if kind is None or not issubclass(kind, cls):
            raise io.FileError(f"{file}: expected a model of the class {cls.__name__} or one derived from it, found {name!r}")
        # What initialisations draw is overwritten, and nobody's to miss.
        with torch.random.fork_rng(devices=()):
            return rebuild(file, kind, name, config, state, device, dtype).eval()


def described_model(path: Path, description: Mapping[str, Any]) -> tuple[Any, Any]:
    """The name and the config in a file's description. Raises FileError for a description of another format."""
    found = description.get("format")
    if found != FORMAT:
        newer = ", which a newer fastgen wrote" if isinstance(found, int) and found > FORMAT else ""
        raise io.FileError(f"{path}: expected a checkpoint of format {FORMAT}, found {found!r}{newer}")
    model = description.get("model")
    return (model.get("name"), model.get("config")) if isinstance(model, dict) else (None, None)


def rebuild(
    path: Path,
    kind: type[Model],
    name: str,
    config: Any,
    state: Mapping[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> Model:
    """The model of a class, a config and numbers, with these on `device`. Raises FileError where they do not fit together."""
    try:
        _expect_sizes(kind, config, state)
        built = kind(**config)
        dtype = dtype or next((t.dtype for t in state.values() if t.is_floating_point()), None)
        built = built.to(device=device, dtype=dtype)
        built.load_state_dict(state)
    # What a wrong config or the numbers of another model raise.
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        found = " ".join(str(error).split())
        raise io.FileError(f"{path}: expected the numbers and the config of a {name}, found: {found}") from error
    return built


def _expect_same(path: Path, description: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise io.FileError(f"{path}: expected the model's config, found: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise io.FileError(f"{path}: expected JSON, found: {error}") from error
    if found != description:
        raise io.FileError(f"{path}: expected the config that {WEIGHTS} was written with, found another")


def _expect_sizes(kind: type[Pretrained], config: Any, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError for sizes that the numbers in the file do not bear out, before memory is taken for them."""
    if not isinstance(config, dict):
        raise ValueError(f"config: expected an object, found {type(config).__name__}")
    most = max(SMALL, sum(t.numel() for t in state.values()))
    most_transforms = len(state) if kind.stacks_modules(config) else most
    for key, size in _whole_numbers("config", config):
        if key not in NO_SIZES and size > (most_transforms if key == "transforms" else most):
            raise ValueError(f"{key}: expected a size that {most} numbers in {len(state)} tensors bear out, found {size}")
    # Tensors of this device take no memory.
    for key, t in kind(**config, device="meta").state_dict().items():
        if key not in state or state[key].shape != t.shape:
            found = tuple(state[key].shape) if key in state else None
            raise ValueError(f"{key}: expected shape {tuple(t.shape)}, found {found}")


def _whole_numbers(key: str, value: Any) -> Iterator[tuple[str, int]]:
    """All whole numbers of a JSON value, each with the key that it is under."""
    if isinstance(value, int):
        yield key, value
    for name, entry in value.items() if isinstance(value, dict) else ():
        yield from _whole_numbers(name, entry)
    for entry in value if isinstance(value, list) else ():
        yield from _whole_numbers(key, entry)
