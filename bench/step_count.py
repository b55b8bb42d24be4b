"""What one training step of a model computes, moves and keeps, counted by walking it on tensors without data.

The model's own code runs, every operation of fastgen in its registered form, so that what is kept for the backward pass is what
the operations themselves say they save. Nothing is computed and no memory is taken: sizes may be far beyond the machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastgen.flows import reversible

from .case import Work
from .operation_flops import operation_flops

# Bytes that Adam moves for every byte of a parameter: it, its gradient and two moments in, all but the gradient out.
ADAM_TRAFFIC, ADAM_STATE = 7, 2


class StepCount(NamedTuple):
    """Of one step, in float32: sizes in bytes.

    parameters: bytes of the parameters, and so of their gradients.
    saved: what is kept from the forward pass for the backward pass, beyond the data and the parameters.
    peak: the most that is there at once beyond those two, gradients included.
    forward, backward: the work of each operation, in order.
    """

    parameters: int
    saved: int
    peak: int
    forward: Sequence[Work]
    backward: Sequence[Work]

    @property
    def workspace(self) -> int:
        """What the worst moment takes beyond the gradients and all that is saved; at most."""
        return max(0, self.peak - self.saved - self.parameters)

    @property
    def optimizer(self) -> Work:
        return Work(0, ADAM_TRAFFIC * self.parameters)


def count_step(model: nn.Module, batch: int, features: int) -> StepCount:
    """Counts a step on `batch` rows of a model built with device="meta", which is of no other use afterwards."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def placed(tensor: Tensor) -> Tensor:
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")

    # Outside of the mode plans are made of real degrees.
    model._apply(placed)
    with mode, _registered_operations():
        x = torch.empty(batch, features)
        counter = _Counter([x, *model.parameters(), *model.buffers()])
        with counter:
            loss = -model(x).mean()
            saved, forward = counter.live, counter.taken()
            loss.backward()
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return StepCount(parameters, saved, counter.peak, forward, counter.taken())


class _Counter(TorchDispatchMode):
    """Notes the work of each operation, and how many bytes live at once in storages that were not there before."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._works: list[Work] = []
        self._known = {t.untyped_storage()._cdata for t in known}

    def taken(self) -> list[Work]:
        """The work since the last call."""
        works, self._works = self._works, []
        return works

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        for output in outputs:
            self._note(output.untyped_storage())
        work = Work(operation_flops(func, args, kwargs, result), _traffic(func, inputs, outputs))
        if work != Work(0, 0):
            self._works.append(work)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _traffic(func: OpOverload, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Every argument read and every result written once; nothing for a view, or for memory that is only set aside."""
    if not inputs or not outputs:
        return 0
    storages = {t.untyped_storage()._cdata for t in inputs}
    if not func._schema.is_mutable and all(t.untyped_storage()._cdata in storages for t in outputs):
        return 0
    # Rows that are one row, expanded, are read once.
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in (*inputs, *outputs))


class _NothingRandom(reversible.RandomState):
    """The state of generators that a walk without numbers leaves alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def advanced(self) -> bool:
        return False

    def restore(self) -> None:
        pass


@contextmanager
def _registered_operations() -> Iterator[None]:
    """Has operations called as they are while a compiler looks: through the dispatcher, which knows their fake forms."""
    with patch("torch.compiler.is_compiling", lambda: True), patch.object(reversible, "RandomState", _NothingRandom):
        yield
