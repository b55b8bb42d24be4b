"""What a transform is, its inverse, and compositions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..ops.gaussian_log_prob import gaussian_log_prob
from ..reference.accumulate import accumulator
from .reversible import same_random_numbers


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


class Transform(nn.Module):
    """An invertible map of vectors with the logarithm of its Jacobian determinant.

    `forward` goes from data to noise, `inverse` back. Both take `log_det`, what the transforms before have summed up, and
    return it with their own added. A subclass gives `forward` and `inverse`.
    """

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

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        """The step from the input to `output`, what `forward` gave (`inverse`, if inverse), with the input rebuilt from it.

        To be called with gradients enabled. Its network runs twice, once in each direction: a transform that can do with one
        evaluation gives its own.
        """
        there, back = (self.inverse, self.forward) if inverse else (self.forward, self.inverse)
        with torch.no_grad(), same_random_numbers(output.device):
            rebuilt, _ = back(output, context)
        leaf = rebuilt.detach().requires_grad_()
        return Retraced((leaf,), *there(leaf, context))


def spread_log_det(value: Tensor | float, x: Tensor, log_det: Tensor | None) -> Tensor:
    """A log_det that is the same for every row of x (..., D), added to `log_det` if given: (...)."""
    if log_det is None:
        log_det = torch.zeros(x.shape[:-1], dtype=accumulator(x.dtype), device=x.device)
    return log_det + value


class Inverse(Transform):
    """A transform with its two directions swapped."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    @property
    def exact_inverse(self) -> bool:
        return self.transform.exact_inverse

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context, log_det=log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(z, context, log_det=log_det)

    def retrace(self, output: Tensor, context: Tensor | None = None, *, inverse: bool = False) -> Retraced:
        return self.transform.retrace(output, context, inverse=not inverse)


class Composed(Transform):
    """Transforms one after the other: the first meets the data, the last gives the noise. Compositions inside are flattened."""

    def __init__(self, transforms: Iterable[Transform]) -> None:
        super().__init__()
        flat: list[Transform] = []
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise TypeError(f"transforms[{i}]: expected a Transform, found {type(transform).__name__}")
            flat.extend(transform if isinstance(transform, Composed) else [transform])
        if not flat:
            raise ValueError("transforms: expected at least one, found none")
        self.transforms = cast("Sequence[Transform]", nn.ModuleList(flat))

    def forward(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for transform in self.transforms:
            x, log_det = transform(x, context, log_det=log_det)
        assert log_det is not None
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for transform in reversed(self.transforms):
            z, log_det = transform.inverse(z, context, log_det=log_det)
        assert log_det is not None
        return z, log_det

    def normal_log_prob(self, x: Tensor, context: Tensor | None = None, *, log_det: Tensor | None = None) -> Tensor:
        *first, last = self.transforms
        for transform in first:
            x, log_det = transform(x, context, log_det=log_det)
        return last.normal_log_prob(x, context, log_det=log_det)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, index: int) -> Transform:
        return self.transforms[index]
