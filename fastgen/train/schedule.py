"""The learning rate at every step."""

from __future__ import annotations

import math
from typing import Any

from .config import TrainConfig


class Schedule:
    """The learning rate of `config` for a run of `steps` steps at most."""

    def __init__(self, config: TrainConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self._factor, self._best, self._waited = 1.0, -math.inf, 0

    def rate(self, step: int) -> float:
        """The rate of a step, the first being 0."""
        config = self.config
        rate = config.learning_rate * self._factor
        if step < config.warmup_steps:
            return rate * (step + 1) / config.warmup_steps
        if config.schedule == "cosine":
            done = (step - config.warmup_steps) / max(1, self.steps - config.warmup_steps)
            rate *= config.final_rate + (1 - config.final_rate) * (1 + math.cos(math.pi * min(1.0, done))) / 2
        return rate

    def epoch(self, valid: float) -> None:
        """Takes in the validation likelihood of an epoch."""
        if valid > self._best:
            self._best, self._waited = valid, 0
            return
        self._waited += 1
        if self.config.schedule == "plateau" and self._waited >= self.config.plateau_patience:
            self._factor, self._waited = self._factor * self.config.plateau_factor, 0

    def state(self) -> dict[str, Any]:
        """What `load` continues from, as JSON knows it."""
        return {"factor": self._factor, "best": None if math.isinf(self._best) else self._best, "waited": self._waited}

    def load(self, state: dict[str, Any]) -> None:
        self._factor, self._waited = state["factor"], state["waited"]
        self._best = -math.inf if state["best"] is None else state["best"]
