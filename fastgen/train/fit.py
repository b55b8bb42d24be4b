"""Training from Python, on arrays as they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data import Dataset, Part
from ..data.dataset import cuts
from ..io import FileError
from .checkpoint import Checkpointer
from .config import TrainConfig
from .log import CsvLog
from .loop import train
from .models import MODELS, fit_for
from .observer import Epoch, Observer
from .run import RunFolder

Array = Tensor | NDArray[Any]


def fit(
    model: nn.Module,
    data: Dataset | Array,
    *,
    context: Array | None = None,
    weight: Array | None = None,
    valid: float | Part = 0.1,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> list[Epoch]:
    """Trains `model` by maximum likelihood and leaves the weights in it that were best on held-out rows.

    Args:
        model: as `train` takes it.
        data: rows (n, D), of numbers as they are, or a whole data set with its split.
        context: (n, F), what each row is conditioned on.
        weight: (n,), how much each row counts.
        valid: the fraction of the rows to hold out, chosen by `seed`, or rows of their own.
        run: a folder for the log, the best weights (`checkpoint.safetensors`) and states to resume from.
        resume: whether to go on from the newest state there.
        observers: told of every step and epoch.
        settings: those of `TrainConfig`.

    Returns:
        A record of every epoch; log-likelihoods in nats per dimension.

    Raises:
        ValueError, TypeError: data of another shape, nan or inf, an unknown or bad setting.
        NonFiniteLoss, Interrupted, FileError: as `train` does.
    """
    config = TrainConfig(**settings)
    for name, array in (("context", context), ("weight", weight)):
        if array is not None and isinstance(data, Dataset):
            raise ValueError(f"{name}: expected None beside a data set, which has its own, found an array")
    if resume and (run is None or not os.path.isdir(run)):
        raise FileError(f"run: expected the folder of a run to resume, found {None if run is None else os.fspath(run)!r}")
    dataset = fit_for(model, data if isinstance(data, Dataset) else _dataset(data, context, weight, valid, config.seed))
    if run is None:
        return train(model, dataset, config, observers)
    folder = RunFolder(run)
    with folder.locked():
        if not resume:
            folder.claim()
        files = [CsvLog(folder.log), *_checkpoint(model, folder)]
        return train(model, dataset, config, [*files, *observers], run=folder, resume=resume)


def _checkpoint(model: nn.Module, folder: RunFolder) -> list[Observer]:
    """What keeps the best weights, for models that can be built from a config."""
    name = next((name for name, kind in MODELS.items() if type(model) is kind), None)
    return [] if name is None else [Checkpointer(folder.checkpoint, {"model": {"name": name, "config": model.config}})]


def _dataset(data: Array, context: Array | None, weight: Array | None, valid: float | Part, seed: int) -> Dataset:
    rows = _floating(data)
    part = Part(rows, _like(context, rows), _like(weight, rows))
    if isinstance(valid, Part):
        return Dataset("rows", seed, part, valid, valid)
    train_rows, valid_rows, _ = cuts(len(part), seed, valid, 0.0)
    if not 0 < valid < 1 or len(valid_rows) == 0 or len(train_rows) == 0:
        raise ValueError(f"valid: expected a fraction that leaves rows on both sides of {len(part)}, found {valid}")
    train_part, held_out = part.take(train_rows), part.take(valid_rows)
    for found in (train_part, held_out):
        if found.weight is not None and not found.weight.any():
            raise ValueError(f"weight: expected some above 0 on both sides of a split of {len(part)} rows, found 0 only")
    return Dataset("rows", seed, train_part, held_out, held_out)


def _floating(array: Array) -> NDArray[Any]:
    if isinstance(array, Tensor):
        # NumPy has no bfloat16.
        array = (array.float() if array.dtype == torch.bfloat16 else array).detach().cpu().numpy()
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "biuf":
        raise TypeError(f"data: expected real numbers, found {numbers.dtype}")
    return numbers if numbers.dtype in (np.float32, np.float64) else numbers.astype(np.float32)


def _like(array: Array | None, rows: NDArray[Any]) -> NDArray[Any] | None:
    return None if array is None else _floating(array).astype(rows.dtype, copy=False)
