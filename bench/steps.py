"""What is timed of a whole model, and what it is checked by.

The passes: "log_prob, no gradients"; "backward" alone, through a density that is kept; "log_prob and gradients"; "step, fused
Adam". A model whose density is another function (a bound) is timed by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .case import Case, relative_error
from .networks import Works

# Small enough that the model stays what it was checked to be.
LEARNING_RATE = 1e-6
# So few rows that rounding takes no unit past the kink of its ReLU, which would shift gradients by 1e-4, in plain PyTorch too.
CHECKED = 32

EVALUATION, BACKWARD, GRADIENTS, STEP = "log_prob, no gradients", "backward", "log_prob and gradients", "step, fused Adam"

LogProb = Callable[[Tensor], Tensor]


class Candidate(NamedTuple):
    """A model as it is timed: what it trains, its density of data, and the data as it wants them.

    arranged: its parameters, or their gradients, as the truth has them.
    checked: the density with the noise given, of one that draws its own.
    """

    parameters: Sequence[Tensor]
    log_prob: LogProb
    x: Tensor
    arranged: Callable[[Sequence[Tensor]], Sequence[Tensor]] = list
    checked: LogProb | None = None


def whole_model(
    operation: str,
    shape: str,
    candidates: Mapping[str, Candidate],
    truth: Callable[[Tensor], Sequence[Tensor]],
    works: Works,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    *,
    modes: Sequence[str] = (EVALUATION, BACKWARD, GRADIENTS, STEP),
    checked: int = CHECKED,
) -> Iterator[Case]:
    """The cases of a model, one for each pass.

    truth: the value and the gradients of its mean, in float64, for the first `checked` rows of fastgen's data.
    targets: by mode.
    """
    ours = next(iter(candidates.values()))

    @cache
    @torch.enable_grad()
    def expected() -> Sequence[Tensor]:
        return truth(_exact(ours.x[:checked]))

    def error(candidate: Candidate, mode: str) -> float:
        log_prob, x = candidate.checked or candidate.log_prob, candidate.x[:checked]
        if mode == EVALUATION:
            with torch.no_grad():
                return relative_error([log_prob(x)], expected()[:1])
        value, *grads = value_and_gradients(candidate.parameters, log_prob, x)
        return relative_error([value, *candidate.arranged(grads)], expected())

    # The step last, which moves the weights.
    made: dict[str, Callable[[Candidate], Callable[[], object]]] = {
        EVALUATION: lambda c: evaluation(c.log_prob, c.x),
        BACKWARD: _backward,
        GRADIENTS: lambda c: partial(value_and_gradients, c.parameters, c.log_prob, c.x),
        STEP: lambda c: training_step(c.parameters, c.log_prob, c.x, fused=True),
    }
    least = dict(zip(made, (works.forward, works.backward, works.forward + works.backward, works.step), strict=True))
    for mode in (mode for mode in made if mode in modes):
        calls = {name: made[mode](candidate) for name, candidate in candidates.items()}
        errors = {name: partial(error, candidate, mode) for name, candidate in candidates.items()}
        wanted = (targets or {}).get(mode, {})
        yield Case(operation, mode, shape, calls, errors, least[mode], wanted, device=ours.x.device.type)


def _exact(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _backward(candidate: Candidate) -> Callable[[], object]:
    @cache
    def value() -> Tensor:
        return candidate.log_prob(candidate.x).mean()

    return lambda: torch.autograd.grad(value(), candidate.parameters, retain_graph=True)


def training_step(
    parameters: Sequence[Tensor], log_prob: LogProb, x: Tensor, *, fused: bool | None = None
) -> Callable[[], None]:
    """A step of Adam on the rows of x."""
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return step


def evaluation(log_prob: LogProb, x: Tensor) -> Callable[[], Tensor]:
    """The call without gradients."""
    return torch.no_grad()(lambda: log_prob(x))


def value_and_gradients(parameters: Sequence[Tensor], log_prob: LogProb, x: Tensor) -> tuple[Tensor, ...]:
    """The log-densities of x and the gradients of their mean."""
    value = log_prob(x)
    return (value, *torch.autograd.grad(value.mean(), parameters))


def own(model: nn.Module, log_prob: LogProb, x: Tensor) -> Candidate:
    """A model that has its parameters as the truth has them."""
    return Candidate(list(model.parameters()), log_prob, x)
