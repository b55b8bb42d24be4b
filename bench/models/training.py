"""The training loop: what it costs beside a loop written by hand, and an epoch of rows that stay on disk.

Work: that of the steps' networks, see networks.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastgen import data, flows
from fastgen.data import Dataset, Part
from fastgen.train import TrainConfig, adam, train

from ..case import OURS, Case, Setting, Work, relative_error
from ..networks import masked_works

# Of the loop's own cost: at most a twentieth of a step.
LOOP_TARGETS = {"a loop by hand": 1 / 1.05}
# Of reading from disk: at most a tenth of an epoch.
MAPPED_TARGETS = {"rows in memory": 1 / 1.1}

FEATURES, HIDDEN, BATCH = 16, (128, 128), 256
STEPS, FEW_STEPS = 40, 4
MAPPED_FEATURES, MAPPED_BATCH, MAPPED_BYTES = 64, 4096, 4 * 2**30
# Small enough that the model stays what it was checked to be.
CONFIG = TrainConfig(epochs=1, batch_size=BATCH, learning_rate=1e-6)


def cases(setting: Setting) -> Iterator[Case]:
    if setting.device == "cpu":
        yield _loop(FEW_STEPS if setting.quick else STEPS)
        if setting.full:
            yield from _mapped()


def _flow(features: int, hidden: tuple[int, ...], transforms: int = 5) -> flows.MAF:
    torch.manual_seed(0)
    return flows.MAF(features, hidden_features=hidden, transforms=transforms, dtype=torch.float32)


def _loop(steps: int) -> Case:
    rows = np.random.default_rng(0).standard_normal((steps * BATCH, FEATURES)).astype(np.float32)
    few = Part(rows[:BATCH])
    shuffled = Dataset("rows", 0, Part(rows), few, few)
    order = torch.from_numpy(np.random.default_rng((CONFIG.seed, 1, 0)).permutation(len(rows)))
    ours, by_hand = _flow(FEATURES, HIDDEN), _flow(FEATURES, HIDDEN)
    x = torch.from_numpy(rows)

    def error(run: Callable[[nn.Module], object]) -> float:
        trained, truth = _flow(FEATURES, HIDDEN), _flow(FEATURES, HIDDEN).double()
        run(trained)
        _by_hand(truth, x.double(), order)
        return relative_error(list(trained.parameters()), list(truth.parameters()))

    candidates: dict[str, Callable[[], object]] = {
        OURS: lambda: train(ours, shuffled, CONFIG),
        "a loop by hand": lambda: _by_hand(by_hand, x, order),
    }
    errors = {
        OURS: lambda: error(lambda model: train(model, shuffled, CONFIG)),
        "a loop by hand": lambda: error(lambda model: _by_hand(model, x, order)),
    }
    shape = f"{steps} steps of {BATCH} x {FEATURES}, 5 x hidden {HIDDEN[0]} x 2"
    return Case("training", "loop", shape, candidates, errors, _work(ours, BATCH, steps), LOOP_TARGETS)


def _work(model: nn.Module, batch: int, steps: int) -> Work:
    one = masked_works(model, batch).step
    return Work(steps * one.flops, steps * one.bytes)


def _by_hand(model: nn.Module, x: Tensor, order: Tensor) -> float:
    """What a person would write for the same numbers: an epoch, and the likelihood of a batch to validate on."""
    parameters = list(model.parameters())
    optimizer = adam(parameters, CONFIG.learning_rate)
    total = 0.0
    for index in order.split(BATCH):
        optimizer.zero_grad()
        loss = -model.log_prob(x[index]).mean() / x.shape[1]  # type: ignore[operator]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        total += loss.item()
    with torch.no_grad():
        return total + model.log_prob(x[:BATCH]).mean().item()  # type: ignore[operator]


def _mapped() -> Iterator[Case]:
    n = MAPPED_BYTES // (4 * MAPPED_FEATURES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        _write(path, n)
        mapped = data.load(path, valid=0.001, test=0.001, mapped=True)
        inside = data.load(path, valid=0.001, test=0.001, mapped=False)
        config = TrainConfig(epochs=1, batch_size=MAPPED_BATCH, learning_rate=1e-6)
        model = _flow(MAPPED_FEATURES, (128,), transforms=1)

        def error() -> float:
            means = (
                np.mean([part.rows.mean(axis=0, dtype=float) for part in d.train.chunks()], axis=0) for d in (mapped, inside)
            )
            return relative_error(*([torch.from_numpy(mean)] for mean in means))

        candidates: dict[str, Callable[[], object]] = {
            OURS: lambda: train(model, mapped, config),
            "rows in memory": lambda: train(model, inside, config),
        }
        shape = f"{n} x {MAPPED_FEATURES} on disk, {MAPPED_BYTES / 2**30:.0f} GiB, hidden 128"
        work, errors = _work(model, MAPPED_BATCH, n // MAPPED_BATCH), dict.fromkeys(candidates, error)
        yield Case("training", "epoch", shape, candidates, errors, work, MAPPED_TARGETS)


def _write(path: Path, n: int) -> None:
    """An npy file of n rows, written in pieces."""
    rng, piece = np.random.default_rng(0), 2**16
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, MAPPED_FEATURES))
    for begin in range(0, n, piece):
        rows[begin : begin + piece] = rng.standard_normal((min(piece, n - begin), MAPPED_FEATURES), dtype=np.float32)
    rows.flush()
