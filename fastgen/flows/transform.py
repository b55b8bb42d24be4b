"""What a transform is, its inverse, and compositions."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..nn.named import kind_of
from ..ops import (
    AutoregressiveBlock,
    NetworkPlan,
    gaussian_log_prob,
    masked_autoregressive_stack,
    masked_autoregressive_stack_log_prob,
)
from ..reference.accumulate import accumulator
from .checks import at_least_one
from .reversible import reconstruction_error, run, same_random_numbers


class Retraced(NamedTuple):
    """One step of a transform, walked again from its output.

    Attributes:
        leaves: tensors of the input's shape; the first is the input, rebuilt. The gradient of the input is the sum of theirs.
        output: what the step gave, as a function of the leaves, the context and the parameters.
        log_det: its own log_det, likewise.
    """

    leaves: tuple[Tensor, ...]
    output: Tensor
    log_det: Tensor


class MaskedBlock(NamedTuple):
    """A step that reads the network of a masked autoregressive transform forward."""

    block: AutoregressiveBlock
    plan: NetworkPlan


# By name, the first of each: the transforms that a description can name.
TRANSFORMS: dict[str, type[Transform]] = {}


class Transform(nn.Module):
    """An invertible map of vectors with the logarithm of its Jacobian determinant.

    `forward` goes from data to noise, `inverse` back. Both take `log_det`, what the transforms before have summed up, and
    return it with their own added. A subclass gives `forward` and `inverse`.

    Attributes:
        config: keyword arguments, as JSON knows them, that build the same transform again; its state_dict holds all numbers.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        TRANSFORMS.setdefault(cls.__name__, cls)

    @property
    def config(self) -> dict[str, Any]:
        raise TypeError(f"transform: expected one that has a config, found {type(self).__name__}")

    @property
    def exact_inverse(self) -> bool:
        """Whether `inverse` undoes `forward` and the other way round, as a reversible stack needs.

        Not so where one of them draws noise that is part of its result, rounds, or sees a batch as a whole.
        """
        return True

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (..., D) and context (..., F) -> z (..., D) and log|det dz/dx| (...) in nats, added to `log_det` if given.

        log_det is float64 for float64 data, else float32.
        """
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (..., D) and context (..., F) -> x (..., D) and log|det dx/dz| (...) in nats, added to `log_det` if given."""
        raise NotImplementedError

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        """The log-density (...) in nats of x when z = forward(x) is standard normal, `log_det` added if given.

        A transform that need not form z for it gives its own.
        """
        z, log_det = self(x, context, log_det=log_det)
        return gaussian_log_prob(z) + log_det

    def masked_block(self, x: Tensor, context: Tensor | None, *, inverse: bool = False) -> MaskedBlock | None:
        """The step to `forward` (x), or to `inverse` (x), as a block of a masked autoregressive stack; None: it is none.

        Such steps in a row are one call.
        """
        return None

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        """The step from the input to `output`, what `forward` gave (`inverse`, if inverse), with the input rebuilt from it.

        To be called with gradients enabled. Its network runs twice, once in each direction: a transform that can do with one
        evaluation gives its own.
        """
        there, back = (self.inverse, self) if inverse else (self, self.inverse)
        with torch.no_grad(), same_random_numbers(output.device):
            rebuilt, _ = back(output, context)
        leaf = rebuilt.detach().requires_grad_()
        return Retraced((leaf,), *there(leaf, context))


def build_transform(
    transform: Transform | Mapping[str, Any],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Transform:
    """The transform itself, or one of TRANSFORMS: its name under "kind", and its arguments; on a device and of a dtype.

    Raises ValueError for an unknown name, TypeError for what is no description.
    """
    placed: dict[str, Any] = {"device": device, "dtype": dtype}
    if isinstance(transform, Transform):
        return transform if device is None and dtype is None else transform.to(**placed)
    kind, options = kind_of(transform, "transform", "kind", TRANSFORMS)
    # Parameters are drawn on their device, which may be that of no memory.
    own = inspect.signature(kind).parameters.values()
    if any(parameter.name == "device" or parameter.kind is parameter.VAR_KEYWORD for parameter in own):
        return kind(**options, **placed)
    return kind(**options).to(**placed)


def describe_transform(transform: Transform) -> dict[str, Any]:
    """What `build_transform` makes the same transform from. Raises TypeError for one of one's own without a config."""
    name = type(transform).__name__
    if TRANSFORMS.get(name) is not type(transform):
        raise TypeError(f"transform: expected a class whose name no other transform has, found {name}")
    return {"kind": name, **transform.config}


def hooked(module: nn.Module) -> bool:
    """Whether something waits for the module to be called: a hook, or what `compile` made of it."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooks) or module._compiled_call_impl is not None


def _stack(steps: Sequence[MaskedBlock], x: Tensor, log_det: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if not steps:
        return x, log_det
    blocks, plans = zip(*steps, strict=True)
    return masked_autoregressive_stack(x, blocks, log_det=log_det, plans=plans)


def spread_log_det(value: Tensor | float, x: Tensor, log_det: Tensor | None) -> Tensor:
    """A log_det that is the same for every row of x (..., D), added to `log_det` if given: (...)."""
    if log_det is None:
        log_det = torch.zeros(x.shape[:-1], dtype=accumulator(x.dtype), device=x.device)
    return log_det + value


class Inverse(Transform):
    """A transform with its two directions swapped; it may be given as `build_transform` takes it."""

    def __init__(
        self,
        transform: Transform | Mapping[str, Any],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.transform = build_transform(transform, device=device, dtype=dtype)

    @property
    def config(self) -> dict[str, Any]:
        return {"transform": describe_transform(self.transform)}

    @property
    def exact_inverse(self) -> bool:
        return self.transform.exact_inverse

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(z, context, log_det=log_det)

    def masked_block(self, x: Tensor, context: Tensor | None, *, inverse: bool = False) -> MaskedBlock | None:
        return None if hooked(self) else self.transform.masked_block(x, context, inverse=not inverse)

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        return self.transform.retrace(output, context, inverse=not inverse)


class Composed(Transform):
    """Transforms one after the other: the first meets the data, the last gives the noise. Compositions inside are flattened.

    A reversible one keeps, for gradients, its last output instead of what every transform reads and computes: on the way back
    each transform's input is rebuilt from its output, and its network evaluated again. Memory does not grow with the number
    of transforms. Inside a plain composition it stays what it is, as one transform.

    Args:
        transforms: at least one, each as `build_transform` takes it; a reversible composition flattens those inside it.
        reversible: whether inputs are rebuilt where gradients are needed; elsewhere there is nothing to keep. All transforms
            must have an exact inverse then, and take float32 or float64. There are no gradients of gradients.
        anchor_every: keeps the input of every n-th transform of a reversible composition too, so that errors of rebuilt
            inputs add up over n transforms only; None: none of them. See `reconstruction_error`.

    Raises:
        ValueError, TypeError: no transforms, something that is none, an `anchor_every` below 1 or of a composition that is not
            reversible.
    """

    def __init__(
        self,
        transforms: Iterable[Transform | Mapping[str, Any]],
        *,
        reversible: bool = False,
        anchor_every: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.reversible, self.anchor_every = reversible, anchor_every
        if anchor_every is not None:
            at_least_one(anchor_every=anchor_every)
            if not reversible:
                raise ValueError(f"anchor_every: expected None with reversible=False, found {anchor_every}")
        flat: list[Transform] = []
        for i, given in enumerate(transforms):
            if not isinstance(given, Transform | Mapping):
                raise TypeError(f"transforms[{i}]: expected a Transform, found {type(given).__name__}")
            transform = build_transform(given, device=device, dtype=dtype)
            whole = not isinstance(transform, Composed) or (transform.reversible and not reversible)
            flat.extend([transform] if whole else cast(Composed, transform))
        if not flat:
            raise ValueError("transforms: expected at least one, found none")
        self.transforms = cast("Sequence[Transform]", nn.ModuleList(flat))

    @property
    def config(self) -> dict[str, Any]:
        own = {"reversible": self.reversible, "anchor_every": self.anchor_every}
        return {"transforms": [describe_transform(transform) for transform in self.transforms], **own}

    def like(self, transforms: Iterable[Transform]) -> Composed:
        """Other transforms, composed in the same way."""
        return Composed(transforms, reversible=self.reversible, anchor_every=self.anchor_every)

    @property
    def exact_inverse(self) -> bool:
        return all(transform.exact_inverse for transform in self.transforms)

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(self.transforms, x, context, log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(self.transforms, z, context, log_det, inverse=True)

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        # What the last transform keeps is gone before the others are rebuilt: nothing is won by rebuilding its input.
        first: list[Transform] = list(self.transforms)
        last: list[MaskedBlock] = []
        while first and not (self.reversible and last) and (step := first[-1].masked_block(x, context)) is not None:
            last.insert(0, step)
            first.pop()
        final = None if last else first.pop()
        if first:
            x, log_det = self._walk(first, x, context, log_det)
        if final is not None:
            return final.normal_log_prob(x, context, log_det=log_det)
        blocks, plans = zip(*last, strict=True)
        return masked_autoregressive_stack_log_prob(x, blocks, log_det=log_det, plans=plans)

    def _walk(
        self,
        transforms: Sequence[Transform],
        x: Tensor,
        context: Tensor | None,
        log_det: Tensor | None,
        inverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        if self.reversible and torch.is_grad_enabled():
            reads = itertools.chain((x, context, log_det), *(transform.parameters() for transform in transforms))
            if any(t is not None and t.requires_grad for t in reads):
                return run(transforms, x, context, log_det, inverse=inverse, anchor_every=self.anchor_every)
        waiting: list[MaskedBlock] = []
        for transform in reversed(transforms) if inverse else transforms:
            block = transform.masked_block(x, context, inverse=inverse)
            if block is not None:
                waiting.append(block)
                continue
            x, log_det = _stack(waiting, x, log_det)
            waiting = []
            x, log_det = (transform.inverse if inverse else transform)(x, context, log_det=log_det)
        x, log_det = _stack(waiting, x, log_det)
        assert log_det is not None
        return x, log_det

    def reconstruction_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How exactly a reversible composition rebuilds the inputs of its transforms for x (..., D) and context (..., F).

        Returns, transform by transform, the largest error of a rebuilt input relative to the largest entry of its row, over
        all rows: (transforms,). It holds all inputs at a time. Where inputs are rebuilt to an error e, gradients are off by
        about e too: `anchor_every` or float64 helps.
        """
        return reconstruction_error(self.transforms, x, context, self.anchor_every)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, index: int) -> Transform:
        return self.transforms[index]
