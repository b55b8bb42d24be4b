"""A density of a few numbers, that trains in no time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fastgen.data import Dataset, Part


class Diagonal(nn.Module):
    """A normal distribution with a mean and a scale per feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    def log_prob(self, x: Tensor) -> Tensor:
        z = (x - self.mean) * (-self.log_scale).exp()
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1) - self.log_scale.sum()


def shifted(rows: int = 300, features: int = 3) -> Dataset:
    """Normal rows with mean 1, 2, ... and standard deviation 1/2."""
    rng = np.random.default_rng(0)
    draw = [
        Part((np.arange(1, features + 1) + 0.5 * rng.standard_normal((n, features))).astype(np.float32))
        for n in (rows, 100, 100)
    ]
    return Dataset("shifted", 0, *draw)
