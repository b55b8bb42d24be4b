"""The training loop: maximum likelihood for anything whose log_prob gives nats per row."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Dataset
from .config import TrainConfig
from .observer import Best, Epoch, Observer

# Rows per call where no gradients are kept.
EVALUATION_ROWS = 2048


class NonFiniteLoss(RuntimeError):
    """The log-likelihood became nan or inf."""


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """Adam with decoupled weight decay: fused where the device has it, else one call per operation for all tensors."""
    parameters = [p for p in parameters if p.requires_grad]
    try:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    except RuntimeError:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, foreach=True)


def mean_log_prob(model: nn.Module, rows: Tensor) -> float:
    """The mean of log_prob over rows (n, features), in nats per row, without gradients and in evaluation mode."""
    with torch.no_grad(), _evaluating(model):
        return sum(_log_prob(model, part).double().sum().item() for part in rows.split(EVALUATION_ROWS)) / len(rows)


def _log_prob(model: nn.Module, rows: Tensor) -> Tensor:
    return model.log_prob(rows)  # type: ignore[operator]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def train(model: nn.Module, data: Dataset, config: TrainConfig, observers: Sequence[Observer] = ()) -> list[Epoch]:
    """Maximises the mean log_prob of `data.train`, and leaves the weights in `model` that were best on `data.valid`.

    Stops after `config.epochs`, `config.seconds`, or `config.patience` epochs without a better validation likelihood; on
    KeyboardInterrupt after the step that runs. The same seed, weights, build and thread count give the same bits.

    Args:
        model: log_prob(rows) gives nats per row, (n, features) -> (n,), differentiable in its parameters.
        data: its rows go to the device and dtype of the model's first parameter.
        observers: told of every step and epoch.

    Returns:
        A record of every finished epoch.

    Raises:
        NonFiniteLoss: with the epoch; the model keeps the best weights so far, if any epoch ended well.
    """
    run = _Run(model, data, config, observers)
    try:
        run.epochs()
    except KeyboardInterrupt:
        if run.best is None:
            raise
    finally:
        if run.best is not None:
            model.load_state_dict(run.best.state)
        for observer in observers:
            observer.finish()
    return run.records


class _Run:
    def __init__(self, model: nn.Module, data: Dataset, config: TrainConfig, observers: Sequence[Observer]) -> None:
        self.model, self.data, self.config, self.observers = model, data, config, observers
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = adam(self.parameters, config.learning_rate, config.weight_decay)
        self.noise = np.random.default_rng(config.seed)
        self.order = torch.Generator().manual_seed(config.seed)
        self.valid = self.rows(data.valid)
        self.start = time.perf_counter()
        self.step = 0
        self.best: Best | None = None
        self.records: list[Epoch] = []

    def rows(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.parameters[0])

    def epochs(self) -> None:
        for epoch in range(1, self.config.epochs + 1):
            nats = self.epoch(epoch)
            record = Epoch(epoch, self.step, *nats, self.rate, time.perf_counter() - self.start)
            if self.best is None or record.valid > self.best.record.valid:
                self.best = Best(record, {k: v.clone() for k, v in self.model.state_dict().items()})
            self.records.append(record)
            for observer in self.observers:
                observer.epoch(record, self.best)
            if self.exhausted(record, self.best):
                return

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Trains for one epoch: its log-likelihood on the training rows as they came and on the validation rows."""
        fitted = self.pass_over(self.rows(self.data.epoch(self.noise)))
        held_out = mean_log_prob(self.model, self.valid) / self.data.features
        for name, nats in (("train", fitted), ("valid", held_out)):
            if not math.isfinite(nats):
                raise NonFiniteLoss(
                    f"epoch {epoch}: the {name} log-likelihood is {nats}; lower learning_rate ({self.config.learning_rate})"
                    f" or clip_norm ({self.config.clip_norm})"
                )
        return fitted, held_out

    def pass_over(self, rows: Tensor) -> float:
        # Summed on the device and read once an epoch: reading every step would wait for it.
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        self.model.train()
        for batch in torch.randperm(len(rows), generator=self.order).split(self.config.batch_size):
            log_prob = _log_prob(self.model, rows[batch.to(rows.device)])
            self.optimizer.zero_grad()
            (-log_prob.mean() / self.data.features).backward()
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm, foreach=True)
            self.optimizer.step()
            total += log_prob.detach().double().sum()
            self.step += 1
            for observer in self.observers:
                observer.step()
        return total.item() / rows.numel()

    @property
    def rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def exhausted(self, record: Epoch, best: Best) -> bool:
        late = self.config.seconds is not None and record.seconds >= self.config.seconds
        return late or record.epoch - best.record.epoch >= self.config.patience
