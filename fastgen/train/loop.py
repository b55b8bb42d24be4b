"""The training loop: maximum likelihood for anything whose log_prob gives nats per row."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import io
from ..data import Dataset
from ..data.dataset import PARTS
from .average import Average
from .batches import batch_count, epoch_batches
from .config import TrainConfig
from .evaluate import log_likelihood
from .interrupt import Interrupted, Request, requests
from .nonfinite import NonFiniteLoss, offending_term
from .observer import Best, Epoch, Observer, Plan
from .randomness import random_states, restore_random_states
from .run import RunFolder
from .schedule import Schedule
from .state import State, grouped, load_optimizer, load_state, optimizer_tensors, save_state
from .step import Step
from .trainable import expect_trainable

# Steps between looks at whether one was left out, on devices where looking means waiting.
STEPS_BETWEEN_LOOKS = 50

# Settings that may change when a run is resumed: they say how long it goes on, what it leaves and what ends it.
RESUMABLE = ("epochs", "patience", "seconds", "save_every", "keep", "on_nonfinite")


def train(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    observers: Sequence[Observer] = (),
    *,
    run: RunFolder | None = None,
    resume: bool = False,
) -> list[Epoch]:
    """Maximises the mean log_prob of `data.train`, and leaves in `model` the weights that were best on `data.valid`.

    The model is in evaluation mode then. Stops after `config.epochs`, `config.seconds`, or `config.patience` epochs without a
    better validation likelihood. The same seed, weights, build and thread count give the same bits, resumed or not.

    Args:
        model: log_prob(x), or log_prob(x, context) where the data has one, gives nats per row, (n, features) -> (n,),
            differentiable in its parameters.
        data: its rows go to the device and dtype of the model's first parameter.
        observers: told of every step and epoch.
        run: where states to resume from are written; None for none. Whoever gives it holds its lock.
        resume: whether to go on from the newest state in `run`; `model` is to be built as it was then.

    Returns:
        A record of every finished epoch, those before the resumption too.

    Raises:
        NonFiniteLoss: naming the step and the term; the model keeps the best weights so far, if any epoch ended well.
        Interrupted: by Ctrl-C or SIGTERM, after the step that ran and the writing of a state; the model keeps the best.
        FileError: a file of the run cannot be written, or no state can be resumed.
        ValueError: what `expect_trainable` raises; other settings or other data than those of the run that is resumed.
    """
    with requests() as request:
        loop = _Loop(model, data, config, observers, run, request)
        if resume:
            loop.load()
        return loop.run_epochs()


def resumable(config: TrainConfig) -> tuple[str, ...]:
    """The settings that may change when a run of `config` is resumed."""
    # The curve of a cosine ends with the last epoch.
    return tuple(name for name in RESUMABLE if name != "epochs" or config.schedule != "cosine")


class _AskedToStop(Exception):
    pass


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        config: TrainConfig,
        observers: Sequence[Observer],
        run: RunFolder | None,
        request: Request,
    ) -> None:
        expect_trainable(model, data, config)
        self.model, self.data, self.config = model, data, config
        self.observers, self.run, self.request = observers, run, request
        self.steps_per_epoch = batch_count(len(data.train), config.batch_size)
        self.stepper = Step(model, config, data.features, _mean_weight(data))
        self.parameters = self.stepper.parameters
        self.device = self.parameters[0].device
        self.schedule = Schedule(config, self.steps_per_epoch * config.epochs)
        self.average = None if config.ema is None else Average(self.parameters, config.ema)
        self.looks = 1 if self.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.number, self.batch = 1, 0
        self.best: Best | None = None
        self.records: list[Epoch] = []
        self.before, self.start = 0.0, time.perf_counter()
        self.saved_at = time.monotonic()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.data)

    @property
    def step(self) -> int:
        return (self.number - 1) * self.steps_per_epoch + self.batch

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def run_epochs(self) -> list[Epoch]:
        plan = Plan(self.config.epochs * self.steps_per_epoch, self.step, len(self.data.train), self.config.epochs)
        with ExitStack() as last:
            for observer in self.observers:
                last.callback(observer.finish)
                observer.start(plan, self.records, self.best)
            last.callback(self.keep_best)
            while self.number <= self.config.epochs and not self.exhausted:
                self.epoch()
            if self.run is not None:
                self.save()
        return self.records

    def keep_best(self) -> None:
        if self.best is not None:
            self.model.load_state_dict(self.best.state)
        self.model.eval()

    @property
    def exhausted(self) -> bool:
        if not self.records or self.best is None:
            return False
        late = self.config.seconds is not None and self.records[-1].seconds >= self.config.seconds
        return late or self.records[-1].epoch - self.best.record.epoch >= self.config.patience

    def epoch(self) -> None:
        rate = self.pass_over()
        fitted, skipped = self.fitted()
        valid = self.validate()
        record = Epoch(self.number, self.step, fitted, valid, rate, self.seconds, skipped)
        if self.best is None or valid > self.best.record.valid:
            self.best = Best(record, self.weights())
        self.records.append(record)
        self.schedule.epoch(valid)
        self.stepper.clear()
        self.number, self.batch = self.number + 1, 0
        for observer in self.observers:
            observer.epoch(record, self.best)
        self.pause()

    def pass_over(self) -> float:
        """The steps of an epoch that are left to do; the rate of the last."""
        self.model.train()
        config, rate = self.config, self.schedule.rate(max(0, self.step - 1))
        like = self.parameters[0]
        for batch in epoch_batches(self.data, self.number, config.batch_size, config.seed, like, self.batch):
            rate = self.schedule.rate(self.step)
            self.stepper(batch, rate)
            self.batch += 1
            if self.average is not None:
                self.average.update(self.step)
            if self.step % self.looks == 0:
                self.look()
            for observer in self.observers:
                observer.step()
            self.pause()
        self.look()
        return rate

    def look(self) -> None:
        """Stops where a step was left out and none may be."""
        if self.config.on_nonfinite == "stop" and (left_out := int(self.stepper.left_out.item())):
            self.batch -= left_out
            batch = next(
                epoch_batches(self.data, self.number, self.config.batch_size, self.config.seed, self.parameters[0], self.batch)
            )
            term = offending_term(self.model, self.stepper.log_prob, batch)
            raise NonFiniteLoss(f"step {self.step + 1} (epoch {self.number}): {term}; {self.advice()}")

    def advice(self) -> str:
        config = self.config
        advice = f"lower learning_rate ({config.learning_rate}) or clip_norm ({config.clip_norm})"
        return advice if config.on_nonfinite == "skip" else f"{advice}, or set on_nonfinite to skip"

    def fitted(self) -> tuple[float, int]:
        """The log-likelihood of the training rows as they came, in nats per dimension, and the steps left out."""
        nats, weight = self.stepper.totals.tolist()
        skipped = int(self.stepper.left_out.item())
        if not weight > 0:
            raise NonFiniteLoss(f"epoch {self.number}: none of its {skipped} steps had a finite loss and gradient")
        return nats / weight / self.data.features, skipped

    def validate(self) -> float:
        try:
            with self.averaged():
                found = log_likelihood(self.model, self.data, "valid", check=self.leave)
        except _AskedToStop:
            self.pause()
        # Steps can be skipped, weights that validation rows are impossible under cannot.
        if not math.isfinite(found.mean):
            rows = f"log_prob is not finite in {int((~np.isfinite(found.per_row)).sum())} of {len(found)} rows"
            raise NonFiniteLoss(f"epoch {self.number}: the valid log-likelihood is {found.mean}: {rows}; {self.advice()}")
        return found.mean / self.data.features

    def leave(self) -> None:
        """Ends an evaluation where a signal asked for it. The state is written outside, where the weights are the run's own."""
        if self.request.signal is not None:
            raise _AskedToStop

    def averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    def weights(self) -> dict[str, Tensor]:
        with self.averaged():
            return {name: t.clone() for name, t in self.model.state_dict().items()}

    def pause(self) -> None:
        """Writes a state when it is time, and stops where a signal asked for it."""
        if self.request.signal is not None:
            if self.run is not None:
                self.save()
            raise Interrupted(self.request.signal, self.step, self.run is not None)
        if self.run is not None and time.monotonic() - self.saved_at >= self.config.save_every:
            self.save()

    def save(self) -> None:
        assert self.run is not None
        # A state with weights of a failed step is none to resume from.
        self.look()
        save_state(self.run, self.step, self.state(), self.config.keep)
        self.saved_at = time.monotonic()

    def state(self) -> State:
        generators, others = random_states(self.device)
        average = [] if self.average is None else self.average.weights
        description = {
            "epoch": self.number,
            "batch": self.batch,
            "seconds": self.seconds,
            "records": [list(record) for record in self.records],
            "best": None if self.best is None else list(self.best.record),
            "schedule": self.schedule.state(),
            "random": others,
            "training": asdict(self.config),
            "data": self.fingerprint,
        }
        tensors = grouped(
            model=self.model.state_dict(),
            best={} if self.best is None else self.best.state,
            optimizer=optimizer_tensors(self.stepper.optimizer),
            average={str(i): t for i, t in enumerate(average)},
            sums={"totals": self.stepper.totals, "left_out": self.stepper.left_out},
            random=generators,
        )
        return State(tensors, description)

    def load(self) -> None:
        """Goes back to the newest state of the run."""
        assert self.run is not None
        state, complaints = load_state(self.run)
        for complaint in complaints:
            warnings.warn(f"{complaint}; the state before it is resumed", stacklevel=3)
        self.check(state.description)
        try:
            self.restore(state)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
            raise io.FileError(f"{self.run.folder}: expected a state of this model, found: {error}") from error

    def check(self, found: Any) -> None:
        assert self.run is not None
        training, free = found.get("training"), resumable(self.config)
        if not isinstance(training, dict) or "data" not in found:
            raise io.FileError(f"{self.run.folder}: expected a state with the settings and the data of its run, found none")
        for name, value in asdict(self.config).items():
            before = training.get(name)
            if name not in free and value != before:
                raise ValueError(f"{name}: expected {before!r}, with which the run began, found {value!r}")
        if self.fingerprint != found["data"]:
            raise ValueError(f"data: expected that of the run that is resumed, {found['data']}, found {self.fingerprint}")

    def restore(self, state: State) -> None:
        self.model.load_state_dict({name: t.to(self.device) for name, t in state.group("model").items()})
        load_optimizer(self.stepper.optimizer, state.group("optimizer"), self.parameters)
        if self.average is not None:
            average = state.group("average")
            self.average.load([average[str(i)] for i in range(len(average))])
        sums, found = state.group("sums"), state.description
        self.stepper.totals.copy_(sums["totals"])
        self.stepper.left_out.copy_(sums["left_out"])
        self.number, self.batch, self.before = found["epoch"], found["batch"], found["seconds"]
        self.records = [Epoch(*record) for record in found["records"]]
        self.schedule.load(found["schedule"])
        if found["best"] is not None:
            best = Epoch(*found["best"])
            record = self.records[self.records.index(best)]
            self.best = Best(record, {name: t.to(self.device) for name, t in state.group("best").items()})
        restore_random_states(self.device, state.group("random"), found["random"])


def fingerprint(data: Dataset) -> dict[str, Any]:
    """What tells one data set from another: its sizes, its split and a digest of the rows of each part that are read first."""
    digest = hashlib.sha256()
    for name in PARTS:
        first = next(getattr(data, name).chunks())
        for array in (first.rows, first.context, first.weight):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data.cast("B"))
    return {
        "name": data.name,
        "seed": data.seed,
        "rows": [len(data.train), len(data.valid), len(data.test)],
        "features": data.features,
        "context_features": data.context_features,
        "digest": digest.hexdigest()[:16],
    }


def _mean_weight(data: Dataset) -> float:
    if not data.train.weighted:
        return 1.0
    total = sum(float(part.weight.sum(dtype="float64")) for part in data.train.chunks() if part.weight is not None)
    return total / len(data.train)
