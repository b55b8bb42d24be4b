"""How to train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop.

    epochs: passes over the training rows at most.
    patience: epochs without a better validation likelihood after which training stops.
    clip_norm: the largest 2-norm of all gradients together; larger ones are scaled down to it.
    weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019).
    seconds: no epoch starts later than this; None for no limit.
    seed: of the order of rows and the noise on them.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    patience: int = 20
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        # Written so that NaN fails too.
        for name in ("learning_rate", "clip_norm", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a number above 0, found {value}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: expected at least 0, found {self.weight_decay}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, found {self.seed}")
