"""The fused path against the same network in plain PyTorch, measured in turns."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping

import torch
from rich.table import Table
from torch import Tensor

from ..flows import Composed, Flow, MaskedAutoregressiveTransform
from ..train import adam

# Of the largest log-probability: the float32 rounding of two orders of summation, through a stack of transforms.
AGREEMENT = 1e-4
# Small enough that no candidate's weights move to where the others' are not.
LEARNING_RATE = 1e-6

# Seconds per call of every candidate, round by round.
Times = Mapping[str, list[float]]
FUSED = "fastgen"


class Disagreement(RuntimeError):
    """The two paths do not compute the same log-probabilities."""


def measure(model: Flow, rows: Tensor, *, seconds: float) -> dict[str, Times]:
    """Times of a training step (forward, backward, Adam) and of log_prob without gradients, preprocessing left out.

    Args:
        model: a MAF, which stays as it is.
        rows: (batch, features) as the model takes them.
        seconds: for each of the two measurements, roughly.

    Raises:
        Disagreement: before anything is timed.
    """
    from ..bench.plain import PlainMAF  # type: ignore[import-not-found]
    from ..bench.timing import interleave  # type: ignore[import-not-found]

    fused, rows = _bare(model, rows)
    # Each candidate trains weights of its own.
    plain, plain_too = PlainMAF(fused), PlainMAF(fused)
    _check(fused, plain, rows)
    evaluations = {FUSED: _evaluation(fused, rows), "plain PyTorch": _evaluation(plain, rows)}
    steps = {
        FUSED: _step(fused, adam(fused.parameters(), LEARNING_RATE), rows),
        "plain PyTorch": _step(plain, torch.optim.Adam(plain.parameters(), LEARNING_RATE), rows),
        "plain PyTorch, fused Adam": _step(plain_too, adam(plain_too.parameters(), LEARNING_RATE), rows),
    }
    return {
        "log_prob": interleave(evaluations, device=rows.device.type, seconds=seconds),
        "training step": interleave(steps, device=rows.device.type, seconds=seconds),
    }


def speed_table(times: Mapping[str, Times], batch: int) -> Table:
    """Median times and the median, over the rounds, of their ratio to fastgen's."""
    table = Table(title=f"speed, batch of {batch}, interleaved medians", title_justify="left")
    table.add_column("work")
    table.add_column("by")
    table.add_column("ms", justify="right")
    table.add_column("fastgen is faster by", justify="right")
    for work in ("training step", "log_prob"):
        for name, found in times[work].items():
            ratio = statistics.median(t / base for t, base in zip(found, times[work][FUSED], strict=True))
            gain = "" if name == FUSED else f"{ratio:.2f} x"
            table.add_row(work, name, f"{1e3 * statistics.median(found):.2f}", gain)
    return table


def _bare(model: Flow, rows: Tensor) -> tuple[Flow, Tensor]:
    """A copy of the model without preprocessing, and the rows after it."""
    blocks = []
    with torch.no_grad():
        for transform in model.transform:  # type: ignore[attr-defined]
            if isinstance(transform, MaskedAutoregressiveTransform):
                blocks.append(copy.deepcopy(transform))
            else:
                rows, _ = transform(rows)
    return Flow(model.base, Composed(blocks)), rows


def _check(fused: Flow, plain: torch.nn.Module, rows: Tensor) -> None:
    with torch.no_grad():
        ours, theirs = fused.log_prob(rows), plain.log_prob(rows)  # type: ignore[operator]
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not error <= AGREEMENT:
        raise Disagreement(f"log_prob: expected the fused and the plain path to agree to {AGREEMENT}, found {error:.1e}")


def _evaluation(model: torch.nn.Module, rows: Tensor) -> Callable[[], Tensor]:
    return torch.no_grad()(lambda: model.log_prob(rows))  # type: ignore[operator]


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(rows).mean()).backward()  # type: ignore[operator]
        optimizer.step()

    return step
