"""Checkpoints: a model's numbers and the description it is rebuilt from, in one safetensors file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import io
from ..models.posteriors import AMORTISED
from .models import MODELS
from .observer import Best, Epoch, Observer, Plan

FORMAT = 2
# Whole numbers of a config that nothing grows with; and what any file may ask for.
NO_SIZES = ("seed", "levels", "samples")
SMALL = 4096


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes a state_dict and what it belongs to, atomically.

    Args:
        description: {"model": {"name": one of MODELS, "config": keyword arguments}, ...}, as JSON knows it.

    Raises:
        FileError: the file cannot be written.
    """
    io.save(path, state, {"format": FORMAT, **description})


def load_checkpoint(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The model in evaluation mode on `device`, and the description it was saved with. Raises FileError, naming the file."""
    state, description = io.load(path, device)
    if description.get("format") != FORMAT:
        raise io.FileError(f"{path}: expected a checkpoint of format {FORMAT}, found {description.get('format')!r}")
    model = description.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(name, str) or name not in MODELS:
        raise io.FileError(f"{path}: expected a model of {', '.join(MODELS)}, found {name!r}")
    try:
        _expect_sizes(name, model["config"], state)
        built = MODELS[name](**model["config"])
        dtype = next((t.dtype for t in state.values() if t.is_floating_point()), None)
        built = built.to(device=device, dtype=dtype)
        built.load_state_dict(state)
    # What a wrong config or the numbers of another model raise.
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise io.FileError(f"{path}: expected the numbers and the config of a {name}, found: {error}") from error
    return built.eval(), description


def _expect_sizes(name: str, config: Any, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError for sizes that the numbers in the file do not bear out, before memory is taken for them."""
    most = max(SMALL, sum(t.numel() for t in state.values()))
    # Transforms are modules, with tensors each, but those whose parameters an encoder gives.
    most_transforms = most if config.get("posterior") in AMORTISED else len(state)
    for key, size in _whole_numbers("config", config):
        if key not in NO_SIZES and size > (most_transforms if key == "transforms" else most):
            raise ValueError(f"{key}: expected a size that {most} numbers in {len(state)} tensors bear out, found {size}")
    # Tensors of this device take no memory.
    for key, t in MODELS[name](**config, device="meta").state_dict().items():
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


class Checkpointer(Observer):
    """Keeps the best weights on disk: after an epoch that is the best so far, but not more often than every `interval` seconds.

    At the end the file holds the best of all epochs.
    """

    def __init__(self, path: str | os.PathLike[str], description: Mapping[str, Any], *, interval: float = 10.0) -> None:
        self.path, self.description, self.interval = path, description, interval
        self._written_at = -float("inf")
        self._written: Epoch | None = None
        self._best: Best | None = None

    def start(self, plan: Plan, records: Sequence[Epoch], best: Best | None) -> None:
        self._best = best

    def epoch(self, record: Epoch, best: Best) -> None:
        self._best = best
        if time.monotonic() - self._written_at >= self.interval:
            self._write()

    def finish(self) -> None:
        self._write()

    def _write(self) -> None:
        if self._best is None or self._best.record is self._written:
            return
        save_checkpoint(self.path, self._best.state, {**self.description, "best": self._best.record._asdict()})
        self._written, self._written_at = self._best.record, time.monotonic()
