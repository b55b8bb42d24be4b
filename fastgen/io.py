"""Files: named tensors with a JSON description in one safetensors file, written whole or not at all, read without pickle."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# The keys of the description, and of the digest of all that is stored, among the strings in a safetensors header.
_KEY = "fastgen"
_DIGEST = "sha256"
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class FileError(ValueError):
    """A file that is missing, cannot be written or does not hold what it should; the message names it."""


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` so that the file is at every moment the old one or the new one, whole.

    Missing folders are made, and what writers that were killed left beside the file is removed. Raises FileError where the
    file cannot be written; the old one, if any, then stays.
    """
    _write(Path(path), [content])


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        try:
            with open(temporary, "wb") as file:
                _lock(file.fileno())
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    _sync_folder(path.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what writers that were killed left in a folder beside the file of that name; beside any file without a name."""
    for leftover in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            # Locked for as long as its writer lives.
            if _lock(file.fileno()):
                leftover.unlink()


def _lock(descriptor: int) -> bool:
    """Whether this process now holds the file's lock, which ends with the descriptor or the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Another has it, or the file system has no locks.
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Makes the new name last beyond a power cut, where the file system can: the file itself is whole either way."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON value, indented, atomically. Raises ValueError for NaN and inf, which JSON lacks."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def save(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON description to one safetensors file, atomically, with a digest of both.

    Args:
        path: the file; its folder is made when missing.
        tensors: real numbers of any dtype, shapes, strides and devices; tensors that share memory are stored one by one.
        description: what json can write; it is stored in the file's header.

    Raises:
        FileError: the file cannot be written.
        ValueError, TypeError: the description is not JSON; a tensor of another dtype.
    """
    text = json.dumps(description, allow_nan=False)
    for name, t in tensors.items():
        if t.dtype not in _DTYPES:
            raise TypeError(f"{name}: expected a tensor of real numbers of 1 to 8 bytes, found {t.dtype}")
    # No copy of what lies contiguous on the CPU. Wide numbers first, so that all are aligned in the file.
    stored = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    stored = dict(sorted(stored.items(), key=lambda item: (-item[1].element_size(), item[0])))
    header: dict[str, Any] = {"__metadata__": {_KEY: text, _DIGEST: _digest(stored, text)}}
    end = 0
    for name, t in stored.items():
        start, end = end, end + t.nbytes
        header[name] = {"dtype": _DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    _write(Path(path), [len(encoded).to_bytes(8, "little"), encoded, *map(_bytes, stored.values())])


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on `device`, and the description that `save` wrote to `path`.

    Raises FileError, naming the file, when it is missing, no safetensors file, cut short, without a description, or does not
    hold what was written.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileError(f"{path}: expected a checkpoint, found {found}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # torch and safetensors have these for shapes and dtypes that they cannot represent.
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileError(f"{path}: expected a whole safetensors file, found: {found}") from error
    description = _description(path, header)
    if header.get(_DIGEST) != _digest(tensors, header[_KEY]):
        raise FileError(f"{path}: expected the numbers that were written, found others (altered or damaged)")
    return {name: t.to(device) for name, t in tensors.items()}, description


def _digest(tensors: Mapping[str, Tensor], description: str) -> str:
    """SHA-256 over names, dtypes, shapes, the description, and the bytes of all tensors by name."""
    names = sorted(tensors)
    index = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    digest = hashlib.sha256(json.dumps([index, description]).encode())
    for name in names:
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _bytes(t: Tensor) -> memoryview:
    return t.reshape(-1).view(torch.uint8).numpy().data


def _description(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in header:
        raise FileError(f"{path}: expected a fastgen description in the header, found none")
    try:
        description = json.loads(header[_KEY])
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: expected a JSON description in the header, found: {error}") from error
    if not isinstance(description, dict):
        raise FileError(f"{path}: expected a JSON object as description, found {type(description).__name__}")
    return description
