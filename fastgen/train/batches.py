"""The batches of an epoch, on the device of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, Part, Window


class Batch(NamedTuple):
    """Rows x (n, D) with a context (n, F) and weights (n,) where the data has any."""

    x: Tensor
    context: Tensor | None
    weight: Tensor | None

    def rows(self, begin: int, end: int) -> Batch:
        return Batch(*(None if t is None else t[begin:end] for t in self))  # type: ignore[arg-type]

    def split(self, size: int) -> list[Batch]:
        """Pieces of `size` rows; the last may be shorter, but not a row by itself (see `batch_count`)."""
        count = batch_count(len(self.x), size)
        return [self.rows(i * size, len(self.x) if i + 1 == count else (i + 1) * size) for i in range(count)]


def batch_count(rows: int, size: int) -> int:
    """How many batches of `size` rows are made.

    A last row that would be alone joins the batch before: a batch of one has no variance, as a batch-norm needs.
    """
    alone = rows % size == 1 and rows > size > 1
    return math.ceil(rows / size) - alone


def smallest_batch(rows: int, size: int) -> int:
    """The rows of the smallest of these batches."""
    others = batch_count(rows, size) - 1
    last = rows - others * size
    return min(size, last) if others else last


def place(part: Part, like: Tensor) -> Batch:
    """A part as tensors of the device and dtype of `like`."""

    def tensor(array: np.ndarray | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(like)

    x = tensor(part.rows)
    assert x is not None
    return Batch(x, tensor(part.context), tensor(part.weight))


def epoch_batches(data: Dataset, number: int, batch_size: int, seed: int, like: Tensor, start: int = 0) -> Iterator[Batch]:
    """The batches of epoch `number` from batch `start` on: the same for the same numbers."""
    windows = data.epoch(number, batch_size, seed)
    while windows and start >= (first := batch_count(len(windows[0]), batch_size)):
        windows, start = windows[1:], start - first
    for part in _read_ahead(windows):
        window = place(part, like)
        yield from window.rows(start * batch_size, len(part)).split(batch_size)
        start = 0


def _read_ahead(windows: Sequence[Window]) -> Iterator[Part]:
    """The windows' rows; while one is used, the next is read."""
    if not windows:
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(windows[0].read)
        for following in windows[1:]:
            part, coming = coming.result(), reader.submit(following.read)
            yield part
        yield coming.result()
