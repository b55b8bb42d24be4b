"""Settings that suit each data set, for options not given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The shape of the model and how to train it, as `fastgen train` takes them."""

    hidden: tuple[int, ...] = (128, 128)
    transforms: int = 5
    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    patience: int = 15


RECIPES = {
    # Few rows: a small rate and strong decay keep the wide network from learning them by heart.
    "digits": Recipe(hidden=(512, 512), epochs=400, learning_rate=3e-4, weight_decay=1.0, patience=40),
    "patches": Recipe(hidden=(512, 512), epochs=20, learning_rate=5e-4, patience=5),
}


def recipe(data: str) -> Recipe:
    """The recipe of a data set; the two-dimensional ones share one."""
    return RECIPES.get(data, Recipe())
