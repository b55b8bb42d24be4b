"""Checkpoints: a model's numbers and the description it is rebuilt from, in one safetensors file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import io
from ..nn.pretrained import FORMAT, described_model, rebuild
from .models import MODELS
from .observer import Best, Epoch, Observer, Plan


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
    name, config = described_model(Path(path), description)
    if not isinstance(name, str) or name not in MODELS:
        raise io.FileError(f"{path}: expected a model of {', '.join(MODELS)}, found {name!r}")
    return rebuild(Path(path), MODELS[name], name, config, state, device).eval(), description


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
