"""Stacks of transforms that keep their last output alone and rebuild the rest from it on the way back.

Gomez et al. 2017, "The Reversible Residual Network: Backpropagation Without Storing Activations", algorithm 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..ops import _check

if TYPE_CHECKING:
    from .transform import Retraced, Transform

NO_FURTHER = "reversible: expected False for gradients of gradients and torch.func transforms, found True"
OUTSIDE_THE_GRAPH = "reversible: expected False under fullgraph=True, found True, which runs outside the compiled graph"


class RandomState:
    """The state of torch's generators on the CPU and on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.states = self._now()

    def _now(self) -> tuple[Tensor, ...]:
        if self.device.type == "cpu":
            return (torch.get_rng_state(),)
        return torch.get_rng_state(), torch.get_device_module(self.device).get_rng_state(self.device)

    def advanced(self) -> bool:
        """Whether random numbers have been drawn since."""
        return not all(torch.equal(then, now) for then, now in zip(self.states, self._now(), strict=True))

    def restore(self) -> None:
        torch.set_rng_state(self.states[0])
        for state in self.states[1:]:
            torch.get_device_module(self.device).set_rng_state(state, self.device)


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """What follows draws the random numbers that were drawn inside, again."""
    state = RandomState(device)
    try:
        yield
    finally:
        state.restore()


class _Step(nn.Module):
    """A transform in one of its directions. `forward` walks it again: `functional_call` can exchange what it reads."""

    def __init__(self, transform: Transform, inverse: bool) -> None:
        super().__init__()
        self.transform = transform
        self.inverse = inverse

    def walk(self, x: Tensor, context: Tensor | None, log_det: Tensor | None) -> tuple[Tensor, Tensor]:
        direction = self.transform.inverse if self.inverse else self.transform
        written = self._floating_versions()
        output, log_det = direction(x, context, log_det=log_det)
        name = type(self.transform).__name__
        if output.dtype != x.dtype:
            raise TypeError(f"reversible: expected {x.dtype} out of {name}, found {output.dtype}")
        # Walked again it would write again: statistics would count a batch twice, a power iteration would move on.
        if self._floating_versions() != written:
            raise RuntimeError(f"reversible: expected transforms that write to no buffer, found {name} in training mode")
        return output, log_det

    def forward(self, output: Tensor, context: Tensor | None) -> Retraced:
        return self.transform.retrace(output, context, inverse=self.inverse)

    def state(self) -> dict[str, Tensor]:
        return dict(itertools.chain(self.named_parameters(), self.named_buffers()))

    def _floating_versions(self) -> list[int]:
        return [buffer._version for buffer in self.buffers() if buffer.is_floating_point()]


class _Walk(NamedTuple):
    """What is known before a call: its steps, the names of all tensors that each reads, the inputs to keep, and autocast."""

    steps: Sequence[_Step]
    names: Sequence[Sequence[str]]
    anchored: Sequence[int]
    autocast: torch.autocast

    def by_step(self, flat: Sequence) -> list[Sequence]:
        """What is given for all tensors that the steps read, step by step."""
        rest = iter(flat)
        return [list(itertools.islice(rest, len(names))) for names in self.names]


class _StepGradients(NamedTuple):
    rebuilt: Tensor
    x: Tensor | None
    context: Tensor | None
    state: Sequence[Tensor | None]


def _step_gradients(
    step: _Step,
    state: dict[str, Tensor],
    output: Tensor,
    context: Tensor | None,
    grads: tuple[Tensor | None, Tensor | None],
    needs_x: bool,
) -> _StepGradients:
    """The gradients of all that one step reads, from those of its output and its log_det."""
    retraced = functional_call(step, state, (output, context))
    leaves = retraced.leaves if needs_x else ()
    inputs = [*leaves, context, *state.values()]
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    reached = [(y, g) for y, g in zip(retraced[1:], grads, strict=True) if g is not None and y.requires_grad]
    found: Iterator[Tensor | None] = itertools.repeat(None)
    if wanted and reached:
        found = iter(torch.autograd.grad([y for y, _ in reached], wanted, [g for _, g in reached], allow_unused=True))
    each = [next(found) if t is not None and t.requires_grad else None for t in inputs]
    count = len(leaves)
    return _StepGradients(retraced.leaves[0].detach(), _total(each[:count]), each[count], each[count + 1 :])


def _total(grads: Sequence[Tensor | None]) -> Tensor | None:
    """Their sum, None standing for zeros."""
    known = [g for g in grads if g is not None]
    return sum(known[1:], known[0]) if known else None


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx, walk: _Walk, x: Tensor, context: Tensor | None, log_det: Tensor | None, *state: Tensor):  # type: ignore[no-untyped-def]
        anchors, ctx.random = [], []
        with walk.autocast:
            for i, step in enumerate(walk.steps):
                if i in walk.anchored:
                    anchors.append(x)
                before = RandomState(x.device)
                x, log_det = step.walk(x, context, log_det)
                ctx.random.append(before if before.advanced() else None)
        ctx.walk = walk
        ctx.save_for_backward(x, context, *anchors, *state)
        ctx.set_materialize_grads(False)
        return x, log_det

    @staticmethod
    def backward(ctx, grad, grad_log_det):  # type: ignore[no-untyped-def]
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            raise RuntimeError(NO_FURTHER)
        walk, (output, context, *kept) = ctx.walk, ctx.saved_tensors
        _, needs_x, needs_context, needs_log_det, *needs = ctx.needs_input_grad
        anchors = dict(zip(walk.anchored, kept, strict=False))
        states, needs = walk.by_step(kept[len(anchors) :]), walk.by_step(needs)
        if context is not None:
            context = context.detach().requires_grad_(needs_context)
        grad_context: Tensor | None = None
        grad_states: list[Sequence[Tensor | None]] = [[None] * len(names) for names in walk.names]
        from_here_on = needs_x or needs_context
        first = next((i for i, needed in enumerate(needs) if from_here_on or any(needed)), len(needs))
        with same_random_numbers(output.device), walk.autocast, torch.enable_grad():
            for i in reversed(range(first, len(needs))):
                if ctx.random[i] is not None:
                    ctx.random[i].restore()
                state = {
                    name: t.detach().requires_grad_(needed)
                    for name, t, needed in zip(walk.names[i], states[i], needs[i], strict=True)
                }
                own = _step_gradients(walk.steps[i], state, output, context, (grad, grad_log_det), needs_x or i > first)
                grad, grad_states[i] = own.x, own.state
                grad_context = _total([grad_context, own.context])
                output = anchors.get(i, own.rebuilt)
        return None, grad, grad_context, grad_log_det if needs_log_det else None, *itertools.chain(*grad_states)


def _anchored(count: int, anchor_every: int | None) -> range:
    """The steps whose inputs are kept; that of the first is nothing that has to be rebuilt from."""
    return range(count if anchor_every is None else anchor_every, count, anchor_every or 1)


def _check_inverses(transforms: Sequence[Transform]) -> None:
    for i, transform in enumerate(transforms):
        if not transform.exact_inverse:
            mode = "training" if transform.training else "evaluation"
            found = f"{type(transform).__name__} in {mode} mode as transforms[{i}]"
            raise RuntimeError(f"reversible: expected transforms with an exact inverse, found {found}")


@torch.compiler.disable(reason=OUTSIDE_THE_GRAPH)
def run(
    transforms: Sequence[Transform],
    x: Tensor,
    context: Tensor | None,
    log_det: Tensor | None,
    *,
    inverse: bool = False,
    anchor_every: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Output and log_det of the transforms, walked from the last to the first if inverse: one node in the graph of gradients.

    Kept for the way back are the context, the last output, and the input of every `anchor_every`-th step.

    Raises:
        TypeError: x is neither float32 nor float64; under autocast half x is taken in float32.
        RuntimeError: a transform that has no exact inverse or writes to its buffers; a torch.func transform; in backward,
            gradients that are to be differentiated.
    """
    (x,) = _check.upcast(x)  # type: ignore[assignment]
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{'z' if inverse else 'x'}: expected float32 or float64 with reversible=True, found {x.dtype}")
    _check_inverses(transforms)
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(NO_FURTHER)
    steps = [_Step(transform, inverse) for transform in (reversed(transforms) if inverse else transforms)]
    states = [step.state() for step in steps]
    kind = x.device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    # A cast weight kept from where there are no gradients would have none where there are.
    autocast = torch.autocast(kind, dtype, enabled, cache_enabled=False)
    walk = _Walk(steps, [list(state) for state in states], _anchored(len(steps), anchor_every), autocast)
    return _Reversible.apply(walk, x, context, log_det, *itertools.chain(*(state.values() for state in states)))


@torch.no_grad()
def reconstruction_error(
    transforms: Sequence[Transform], x: Tensor, context: Tensor | None, anchor_every: int | None
) -> Tensor:
    """How far each transform's input, as rebuilt from the last output, is from what it was: (transforms,)."""
    _check_inverses(transforms)
    inputs, random = [], []
    for transform in transforms:
        inputs.append(x)
        random.append(RandomState(x.device))
        x, log_det = transform(x, context)
    errors = []
    with same_random_numbers(x.device), torch.enable_grad():
        for i in reversed(range(len(inputs))):
            random[i].restore()
            x = transforms[i].retrace(x, context).leaves[0].detach()
            errors.append(_relative_error(x, inputs[i], log_det.dim()))
            x = inputs[i] if i in _anchored(len(inputs), anchor_every) else x
    return torch.stack(errors[::-1])


def _relative_error(x: Tensor, truth: Tensor, batch_dims: int) -> Tensor:
    """The largest error of a row's entries relative to the largest of the row, over all rows; 0 without rows."""
    rows = [t.abs().flatten(batch_dims).amax(-1).flatten() for t in (x - truth, truth)]
    errors = rows[0] / rows[1].clamp_min(torch.finfo(x.dtype).tiny)
    return torch.cat([errors, errors.new_zeros(1)]).max()
