"""A trained model with the data it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import Dataset
from ..train import RunFolder
from ..train.checkpoint import load_checkpoint
from ..train.models import fit_for
from .errors import UserError
from .keys import data_keys
from .settings import Setting, parse
from .source import DataConfig, data_of

# More are no levels that noise between them could tell apart in float32.
MOST_LEVELS = 2**24


@dataclass(frozen=True)
class Trained:
    """A model of a checkpoint, and the description it was saved with."""

    path: Path
    model: nn.Module
    description: dict[str, Any]

    @property
    def name(self) -> str:
        return self.description["model"]["name"].upper()

    @property
    def context_features(self) -> int:
        return self.description["model"]["config"].get("context_features", 0)

    @property
    def noisy_levels(self) -> int | None:
        """The levels of the rows it was trained on, where they got noise."""
        levels = self.description.get("noisy_levels")
        return levels if isinstance(levels, int) and 0 < levels <= MOST_LEVELS else None

    def data(self, source: str | None = None, assign: Sequence[str] = ()) -> Dataset:
        """The data it was trained on, or `source` in its place, split and read as that was but for what is assigned.

        Raises UserError or DataError where it is gone, cannot be read, or has other features.
        """
        given = {} if source is None else {"data.source": Setting(source, "--data")}
        config = data_of(self.description, str(self.path), {**given, **parse(assign, data_keys())})
        if source is None and config.gone:
            expected = f"the data that {self.path} was trained on"
            raise UserError(f"{config.source}: expected {expected}, found no such file; --data names another")
        data = config.load()
        self._check(data, config)
        try:
            return fit_for(self.model, data)
        except ValueError as error:
            raise UserError(f"{config.source}: {error}") from error

    def _check(self, data: Dataset, config: DataConfig) -> None:
        model = self.description["model"]["config"]
        for what in ("features", "context_features"):
            if getattr(data, what) != model.get(what, 0):
                expected = f"{model.get(what, 0)} {what.replace('_', ' ')}, as {self.path} has"
                raise UserError(f"{config.source}: expected {expected}, found {getattr(data, what)}")


def restore(path: Path, device: torch.device) -> Trained:
    """The model of a checkpoint, or of the folder of a run. Raises FileError, naming the file."""
    path = RunFolder(path).checkpoint if path.is_dir() else path
    model, description = load_checkpoint(path, device)
    return Trained(path, model, description)
