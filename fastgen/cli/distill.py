"""`fastgen train distill`: a student that learns from the model of another run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import nn

from ..data import Dataset
from ..train import Distillation, Epoch, LogLikelihood, Observer, RunFolder, log_likelihood, student_of, train
from ..train.distill import distillation_noise, divergence, expect_teacher
from ..train.distill_plots import distillation_figure
from ..train.models import fit_for
from . import options
from .config import RunConfig, TeacherConfig
from .draw import IMAGES, POINTS, draw_samples, noisy_levels
from .errors import UserError
from .experiment import Experiment, expect_run, placed
from .restore import Trained, restore
from .results import Likelihoods
from .settings import Settings, flat

# Samples that speed is measured with, at a time, and for how long.
BATCHES = (256, 1)
TIMING_SECONDS = 3.0

Speed = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class DistillationExperiment(Experiment):
    """A run whose model learns from another's: its data, the teacher's, only serves to look at what it has learned."""

    teacher: Trained
    distillation: Distillation
    noise: Dataset

    def header(self) -> str:
        return f"{self.size}, student of {self.teacher.path}, {len(self.noise.train)} rows of noise an epoch, {self.place}"

    def train(self, observers: Sequence[Observer], run: RunFolder, resume: bool) -> list[Epoch]:
        return train(self.distillation, self.noise, self.config.training, observers, run=run, resume=resume)

    def likelihoods(self) -> Likelihoods:
        student, *simple = super().likelihoods().items()
        teacher = log_likelihood(self.teacher.model, self.data)
        return dict([(f"student {self.name}", student[1]), (f"teacher {self.teacher.name}", teacher), *simple])

    @cached_property
    def divergence(self) -> LogLikelihood:
        """-KL(student || teacher), as measured on noise that was not trained on."""
        return divergence(self.distillation, self.noise)

    @cached_property
    def speed(self) -> Speed:
        return sampling_speed({"student": self.model, "teacher": self.teacher.model})

    def picture(self, records: Sequence[Epoch], likelihoods: Likelihoods) -> Figure:
        return distillation_picture(self.model, self.teacher, self.data, records, self.config.seed)

    def result(self, likelihoods: Likelihoods) -> dict[str, Any]:
        found = self.divergence
        kl = {"nats_per_row": -found.mean, "standard_error": found.standard_error, "rows": len(found)}
        return {**super().result(likelihoods), "kl_student_teacher": kl, "samples_per_second": self.speed}

    def tables(self, likelihoods: Likelihoods) -> list[Table]:
        return [*super().tables(likelihoods), _divergence_table(self.divergence), _speed_table(self.speed)]


def prepare_distillation(config: RunConfig) -> DistillationExperiment:
    """Reads teacher and data and makes the student; writes nothing. Raises UserError, FileError and DataError."""
    config = placed(config)
    assert config.teacher is not None
    teacher = _teacher(config.teacher, config.device)
    data = _data(config, teacher)
    torch.manual_seed(config.seed)
    try:
        student = student_of(teacher.model, **config.options)  # type: ignore[arg-type]
        distillation = Distillation(student, teacher.model)  # type: ignore[arg-type]
    # What options that no signature tells apart raise, and widths that no memory holds.
    except (ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise UserError(f"{config.model}: {error or 'not enough memory'}") from error
    noise = distillation_noise(distillation, config.teacher.rows, config.training.seed)
    expect_run(distillation, noise, config)
    return DistillationExperiment(config, data, student, teacher, distillation, noise)


def _teacher(config: TeacherConfig, device: str | None) -> Trained:
    teacher = restore(Path(config.run), options.device_of(device))
    try:
        expect_teacher(teacher.model)
    except ValueError as error:
        raise UserError(f"{teacher.path}: {error}") from error
    return teacher


def _data(config: RunConfig, teacher: Trained) -> Dataset:
    data = fit_for(teacher.model, config.data.load())
    expected = teacher.description["model"]["config"]["features"]
    if (data.features, data.context_features) != (expected, 0):
        found = f"{data.features} and {data.context_features} of context"
        raise UserError(f"{config.data.source}: expected {expected} features, as {teacher.path} has, found {found}")
    return data


def with_data_of_teacher(settings: Settings) -> Settings:
    """The settings, with the data of the teacher where they name one and no data of their own. Raises FileError."""
    if "teacher.run" not in settings or "data.source" in settings:
        return settings
    teacher = restore(Path(str(settings["teacher.run"].value)), torch.device("cpu"))
    return {**flat({"data": teacher.description.get("data")}, str(teacher.path)), **settings}


def distillation_picture(student: nn.Module, teacher: Trained, data: Dataset, records: Sequence[Epoch], seed: int) -> Figure:
    """Held-out rows beside samples of teacher and student for the same noise seed, and the divergence over the epochs."""
    n = IMAGES if data.image_shape else POINTS
    models = {"teacher": teacher.model, "student": student}
    samples = {f"samples of the {who}": draw_samples(model, noisy_levels(data), n, seed) for who, model in models.items()}
    best = max(record.valid for record in records)
    title = f"student of {teacher.name} on {data.name}: KL {-data.features * best:.3f} nats per row"
    return distillation_figure(data, samples, records, title)


def sampling_speed(models: Mapping[str, nn.Module]) -> Speed:
    """Samples per second of each model, by how many are drawn at a time: medians of turns."""
    from ..bench.timing import interleave  # type: ignore[import-not-found]

    device = next(next(iter(models.values())).parameters()).device.type

    def seconds(n: int) -> dict[str, float]:
        candidates = {name: lambda model=model: model.sample(n) for name, model in models.items()}
        times = interleave(candidates, device=device, seconds=TIMING_SECONDS)
        return {name: statistics.median(found) for name, found in times.items()}

    by_batch = {n: seconds(n) for n in BATCHES}
    return {name: {n: n / by_batch[n][name] for n in BATCHES} for name in models}


def _divergence_table(found: LogLikelihood) -> Table:
    table = Table(title=f"KL(student || teacher), {len(found)} samples", title_justify="left")
    for column in ("nats/row", "std. error"):
        table.add_column(column, justify="right")
    table.add_row(f"{-found.mean:.3f}", f"{found.standard_error:.3f}")
    return table


def _speed_table(speed: Speed) -> Table:
    table = Table(title="samples per second, interleaved medians", title_justify="left")
    table.add_column("model")
    for n in BATCHES:
        table.add_column(f"{n} at a time", justify="right")
    for name, found in speed.items():
        table.add_row(name, *(f"{found[n]:.0f}" for n in BATCHES))
    return table
