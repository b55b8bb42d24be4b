"""Files: named tensors with a JSON description in one safetensors file, written whole or not at all, read without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

# The key of the description among the strings in a safetensors header.
_KEY = "fastgen"


class FileError(ValueError):
    """A file that is missing, cannot be written or does not hold what it should; the message names it."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` so that the file is at every moment the old one or the new one, whole.

    Missing folders are made. Raises FileError where the file cannot be written; the old one, if any, then stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON value, indented, atomically. Raises ValueError for NaN and inf, which JSON lacks."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def save(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON description to one safetensors file, atomically.

    Args:
        path: the file; its folder is made when missing.
        tensors: any dtypes, shapes, strides and devices; tensors that share memory are stored one by one.
        description: what json can write; it is stored in the file's header.

    Raises:
        FileError: the file cannot be written.
        ValueError, TypeError: the description is not JSON.
    """
    header = {_KEY: json.dumps(description, allow_nan=False)}
    # Copies, because safetensors refuses tensors that share memory.
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    write_atomically(path, to_bytes(copies, metadata=header))


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on `device`, and the description that `save` wrote to `path`.

    Raises FileError, naming the file, when it is missing, no safetensors file, cut short, or without a description.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileError(f"{path}: expected a checkpoint, found {found}")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: expected a whole safetensors file, found: {error}") from error
    return tensors, _description(path, header)


def _description(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in header:
        raise FileError(f"{path}: expected a fastgen description in the header, found none")
    try:
        description = json.loads(header[_KEY])
    except ValueError as error:
        raise FileError(f"{path}: expected a JSON description in the header, found: {error}") from error
    if not isinstance(description, dict):
        raise FileError(f"{path}: expected a JSON object as description, found {type(description).__name__}")
    return description
