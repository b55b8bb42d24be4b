"""A checkpoint with the data set it was trained on."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data import Dataset, load
from ..flows import Flow
from ..io import FileError
from ..train.checkpoint import load_checkpoint


def restore(path: Path, device: torch.device) -> tuple[Flow, Dataset, str]:
    """The model of a checkpoint, the data set as it was split for it, and the model's name. Raises FileError."""
    model, description = load_checkpoint(path, device)
    try:
        data = load(description["data"]["name"], seed=description["data"]["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: expected the name and seed of a data set, found {description.get('data')!r}") from error
    return model, data, description["model"]["name"].upper()
