"""The whole of a run: which model, on which data, trained how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..train import TrainConfig
from ..train.distill import ROWS
from ..train.models import MODELS
from . import checks
from .errors import UserError
from .keys import known
from .settings import Settings
from .source import LARGEST_SEED, DataConfig, data_config

MOST_THREADS = 4096
MOST_ROWS = 2**31
# What a distilled model is.
STUDENT = "iaf"


@dataclass(frozen=True)
class TeacherConfig:
    """The run that a student learns from, or a checkpoint of one, as an absolute path; and the rows of noise an epoch."""

    run: str
    rows: int = ROWS


@dataclass(frozen=True)
class RunConfig:
    """What rules a run: the same config, build and CPU give the same bits.

    model: its name; `options` are its own.
    seed: of the first weights; the seeds of data and training follow it where they are not set.
    threads: CPU threads; None for what torch takes.
    device: None for the first CUDA device, else the CPU.
    teacher: what the model is distilled from; None: it learns from the data.
    """

    model: str
    data: DataConfig
    options: Mapping[str, Any] = field(default_factory=dict)
    training: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    threads: int | None = None
    device: str | None = None
    teacher: TeacherConfig | None = None

    def to_json(self) -> dict[str, Any]:
        """The config in the tables of a config file, as JSON knows it; `build_config` makes the same config of them."""
        return {
            "seed": self.seed,
            "threads": self.threads,
            "device": self.device,
            "model": {"name": self.model, **self.options},
            "data": self.data.to_json(),
            "training": asdict(self.training),
            **({} if self.teacher is None else {"teacher": asdict(self.teacher)}),
        }


def build_config(settings: Settings) -> RunConfig:
    """The config that settings make. Raises UserError, naming the place and the key."""
    model = model_name(settings)
    settings = checks.checked(settings, known(model))
    checks.in_range(settings, "seed", 0, LARGEST_SEED)
    checks.in_range(settings, "threads", 1, MOST_THREADS)
    top = {key: setting.value for key, setting in settings.items() if "." not in key}
    seed = top.get("seed", 0)
    options = checks.table(settings, "model")
    options.pop("name")
    teacher = _teacher_config(settings, model)
    training = {"seed": seed, **checks.table(settings, "training")}
    return RunConfig(
        model=model,
        data=data_config(settings, seed),
        options=options,
        training=checks.made(TrainConfig, settings, "training", **training),
        teacher=teacher,
        **top,
    )


def _teacher_config(settings: Settings, model: str) -> TeacherConfig | None:
    found = checks.table(settings, "teacher")
    if not found:
        return None
    if "run" not in found:
        raise UserError("--teacher: expected the folder of a run, or a checkpoint of one, found none")
    if model != STUDENT:
        raise UserError(f"{settings['teacher.run'].origin}: expected model {STUDENT} for a student, found {model}")
    checks.in_range(settings, "teacher.rows", 1, MOST_ROWS)
    return TeacherConfig(**{**found, "run": os.path.abspath(found["run"])})


def model_name(settings: Settings) -> str:
    """The name of the model. Raises UserError where it is missing or unknown."""
    if "model.name" not in settings:
        raise UserError(f"[model] name: expected one of {', '.join(MODELS)}, found none")
    name, origin = settings["model.name"]
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f"{origin}: [model] name: expected one of {', '.join(MODELS)}, found {name!r}")
    return name
