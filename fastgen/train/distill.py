"""Probability density distillation: a flow that learns to be another one from its own samples."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.noise import noise_data
from ..flows import IAF, BatchNorm, Composed, StandardNormal, Transform
from ..flows.autoregressive_flow import AutoregressiveFlow
from ..flows.registry import PREPROCESSING, described
from ..ops import gaussian_log_prob
from .checkpoint import Checkpointer
from .evaluate import LogLikelihood, log_likelihood
from .fit import fit
from .models import MODELS
from .observer import Epoch, Observer
from .run import RunFolder

# Rows of noise an epoch, and of noise that stays the same, to validate on.
ROWS, HELD_OUT = 1 << 14, 1 << 13


class Distillation(nn.Module):
    """The student of a teacher, as a model of the noise that the student's samples are made of.

    van den Oord et al. 2018, "Parallel WaveNet: Fast High-Fidelity Speech Synthesis": the mean of -log_prob over
    standard normal noise is KL(student || teacher), with gradients through the samples. Both flows begin with the same
    preprocessing, which cancels and is left out. Its state_dict is the student's; the teacher is a copy that stays as it is.

    Args:
        student: a flow with a standard normal base, such as `student_of` makes.
        teacher: a flow whose log_prob is differentiable, such as a MAF.

    Raises:
        ValueError: of other features than the teacher, with another preprocessing, base or batch normalisation, or with a
            context.
    """

    discrete = False

    def __init__(self, student: AutoregressiveFlow, teacher: AutoregressiveFlow) -> None:
        super().__init__()
        expect_teacher(teacher)
        _expect_student(student, teacher)
        self.student = student
        # No part of this module: neither trained, nor moved into training mode, nor in its state.
        self._teacher = (copy.deepcopy(teacher).eval().requires_grad_(False),)
        self._blocks = (_blocks(student), _blocks(self.teacher))

    @property
    def teacher(self) -> AutoregressiveFlow:
        return self._teacher[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """log p_teacher(x) - log p_student(x) of the student's samples x for noise z (..., D): (...) in nats."""
        of_student, of_teacher = self._blocks
        y, log_det = of_student.inverse(z)
        log_prob = gaussian_log_prob(z) - log_det
        noise, log_det = of_teacher(y)
        return self.teacher.base.log_prob(noise) + log_det - log_prob

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self.student.load_state_dict(state_dict, *args, **kwargs)


def student_of(teacher: AutoregressiveFlow, **options: Any) -> IAF:
    """An inverse autoregressive flow behind the teacher's preprocessing, with its dtype and device.

    options: those of `fastgen.flows.IAF`, `preprocess` excepted. Raises ValueError where the teacher has a context.
    """
    expect_teacher(teacher)
    like = next(teacher.parameters())
    before = [copy.deepcopy(t) for t in _preprocessing(teacher)]
    return IAF(_features(teacher), preprocess=before, device=like.device, dtype=like.dtype, **options)


def distill(
    student: AutoregressiveFlow,
    teacher: AutoregressiveFlow,
    *,
    rows: int = ROWS,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> list[Epoch]:
    """Trains `student` to minimise KL(student || teacher), and leaves the weights in it that were best on held-out noise.

    Args:
        student, teacher: as `Distillation` takes them.
        rows: of fresh noise an epoch.
        run: a folder for the log, the best weights of the student and states to resume from.
        resume: whether to go on from the newest state there.
        observers: told of every step and epoch.
        settings: those of `TrainConfig`.

    Returns:
        A record of every epoch; its "likelihoods" are -KL in nats per dimension.

    Raises:
        ValueError: what `Distillation` raises, or a bad setting.
        NonFiniteLoss, Interrupted, FileError: as `train` does.
    """
    model = Distillation(student, teacher)
    data = distillation_noise(model, rows, settings.get("seed", 0))
    name = next((name for name, kind in MODELS.items() if type(student) is kind), None)
    if run is not None and name is not None:
        description = {"model": {"name": name, "config": student.config}}
        observers = [Checkpointer(RunFolder(run).checkpoint, description), *observers]
    return fit(model, data, run=run, resume=resume, observers=observers, **settings)


def distillation_noise(model: Distillation, rows: int = ROWS, seed: int = 0) -> Dataset:
    """The noise that a student trains on, `rows` rows an epoch, named after its teacher: a run goes on with no other."""
    weight = next(model.student.parameters())
    dtype = np.dtype(str(weight.dtype).removeprefix("torch."))
    return noise_data(_features(model.teacher), rows, HELD_OUT, seed, dtype, f"noise for teacher {_digest(model.teacher)}")


def divergence(model: Distillation, noise: Dataset) -> LogLikelihood:
    """-KL(student || teacher) as estimated on the noise of the part "test": its mean and standard error, in nats."""
    return log_likelihood(model, noise, "test")


def expect_teacher(teacher: nn.Module) -> None:
    """Raises ValueError for a model that nothing can be distilled from."""
    if not isinstance(teacher, AutoregressiveFlow):
        raise ValueError(f"teacher: expected a flow such as a MAF, found {type(teacher).__name__}")
    _expect_no_context(teacher, "teacher")


def _expect_student(student: AutoregressiveFlow, teacher: AutoregressiveFlow) -> None:
    _expect_no_context(student, "student")
    expected, found = _features(teacher), _features(student)
    if found != expected:
        raise ValueError(f"student: expected {expected} features, as the teacher has, found {found}")
    if type(student.base) is not StandardNormal:
        raise ValueError(f"student: expected a standard normal base, found {type(student.base).__name__}")
    if any(isinstance(module, BatchNorm) for module in student.modules()):
        raise ValueError("student: expected no batch normalisation, which learns nothing from samples")
    own, other = _preprocessing(student), _preprocessing(teacher)
    if len(own) != len(other) or not all(map(_same, own, other)):
        raise ValueError("student: expected the preprocessing of the teacher, such as that of `student_of`")


def _features(flow: AutoregressiveFlow) -> int:
    return flow.stack_config["features"]


def _expect_no_context(flow: AutoregressiveFlow, name: str) -> None:
    if features := flow.stack_config["context_features"]:
        raise ValueError(f"{name}: expected a flow without a context, found one of {features} features")


def _same(one: Transform, other: Transform) -> bool:
    own, others = one.state_dict(), other.state_dict()
    return described(one) == described(other) and all(torch.equal(t, others[name]) for name, t in own.items())


def _preprocessing(flow: AutoregressiveFlow) -> list[Transform]:
    return list(itertools.takewhile(lambda t: isinstance(t, tuple(PREPROCESSING.values())), flow.transform))


def _blocks(flow: AutoregressiveFlow) -> Composed:
    """What comes after the preprocessing."""
    return Composed(flow.transform[i] for i in range(len(_preprocessing(flow)), len(flow.transform)))


def _digest(flow: nn.Module) -> str:
    digest = hashlib.sha256()
    for t in flow.state_dict().values():
        digest.update(t.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
