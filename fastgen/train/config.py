"""How to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("float32", "bfloat16")
ON_NONFINITE = ("stop", "skip")
# What may be None, for none.
OPTIONAL = ("clip_norm", "ema", "seconds")
WHOLE = ("epochs", "batch_size", "accumulate", "patience", "plateau_patience", "keep", "warmup_steps", "seed")
NUMBERS = (
    "learning_rate",
    "final_rate",
    "plateau_factor",
    "weight_decay",
    "clip_norm",
    "ema",
    "seconds",
    "save_every",
)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop.

    epochs: passes over the training rows at most.
    batch_size: rows per step of the optimiser.
    accumulate: pieces a batch's gradient is summed over, for batches that do not fit in memory. The same result but for
        rounding, unless the model takes a batch as a whole (a batch normalisation) or has several masks, one per piece.
    learning_rate: of Adam, where the schedule has its maximum.
    schedule: constant; cosine, down to `final_rate` times the learning rate at the last epoch; or plateau, times
        `plateau_factor` after `plateau_patience` epochs without a better validation likelihood.
    warmup_steps: steps in which the rate rises from 0, linearly, whatever the schedule.
    weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019).
    clip_norm: the largest 2-norm of all gradients together; larger ones are scaled down to it. None: any.
    ema: decay of a moving average of the weights, which then is what is validated and kept; None for none.
    patience: epochs without a better validation likelihood after which training stops.
    precision: bfloat16 runs log_prob under autocast; parameters and sums stay as they are.
    compile: passes the model through torch.compile.
    seconds: no epoch starts later than this; None for no limit.
    on_nonfinite: what to do when the loss or its gradient is nan or inf: stop, or skip that step.
    save_every: seconds between states that can be resumed, where there is a run folder.
    keep: states kept, the newest.
    seed: of the order of rows and the noise on them.

    Raises ValueError, naming the setting, for a value of another type or out of its range.
    """

    epochs: int = 200
    batch_size: int = 256
    accumulate: int = 1
    learning_rate: float = 1e-3
    schedule: str = "constant"
    final_rate: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = 5.0
    ema: float | None = None
    patience: int = 20
    precision: str = "float32"
    compile: bool = False
    seconds: float | None = None
    on_nonfinite: str = "stop"
    save_every: float = 60.0
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(WHOLE, "a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool))
        self._check(NUMBERS, "a number", lambda v: isinstance(v, (int, float)) and not isinstance(v, bool))
        self._check(("compile",), "true or false", lambda v: isinstance(v, bool))
        self._check(
            ("epochs", "batch_size", "accumulate", "patience", "plateau_patience", "keep"), "at least 1", lambda v: v >= 1
        )
        self._check(("warmup_steps", "seed", "weight_decay", "save_every"), "at least 0", lambda v: v >= 0)
        self._check(("learning_rate", "clip_norm", "seconds"), "a number above 0", lambda v: v > 0)
        self._check(("final_rate",), "a number in [0, 1]", lambda v: 0 <= v <= 1)
        self._check(("ema", "plateau_factor"), "a number between 0 and 1", lambda v: 0 < v < 1)
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("on_nonfinite", ON_NONFINITE)):
            self._check((name,), f"one of {', '.join(known)}", known.__contains__)

    def _check(self, names: tuple[str, ...], expected: str, holds: Callable[[Any], bool]) -> None:
        # NaN fails every comparison.
        for name in names:
            value = getattr(self, name)
            if not (value is None and name in OPTIONAL) and (value is None or not holds(value)):
                raise ValueError(f"{name}: expected {expected}, found {value!r}")
