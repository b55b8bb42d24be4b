"""Flows and transforms where PyTorch's distributions, and Pyro, expect theirs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions import transforms as torch_transforms
from torch.distributions.constraints import Constraint

from ..flows import Composed, Flow, Inverse, Permutation, Transform, Unconditional
from ..flows.flow import TO_REAL_NUMBERS, placed_like


def as_transform(of: Flow | Transform, context: Tensor | None = None, *, cache_size: int = 1) -> FlowTransform:
    """A flow's transform, or a transform, as one of `torch.distributions`: from noise to data, rows (..., D) of images too.

    `TransformedDistribution(base, [as_transform(flow)])` is the flow over another base. `condition(context)` gives it a
    context; `.inv` goes from data to noise.

    Args:
        of: the flow, whose embedding the context goes through, or the transform.
        context: (..., F); None: none, or one to be given by `condition`.
        cache_size: 1: the latest pair is kept, and with it its log-determinant; 0: nothing is.

    Raises:
        TypeError: something else.
    """
    return FlowTransform(of, context, cache_size=cache_size)


class FlowTransform(torch_transforms.Transform, nn.Module):
    """What `as_transform` gives. A module: its parameters are those of the flow, for optimisers and `pyro.module`."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, of: Flow | Transform, context: Tensor | None = None, *, cache_size: int = 0) -> None:
        if not isinstance(of, Flow | Transform):
            raise TypeError(f"of: expected a Flow or a Transform, found {type(of).__name__}")
        super().__init__(cache_size=cache_size)
        self.of = of
        self.context = context
        self._cached_log_det: Tensor | None = None

    def __hash__(self) -> int:
        return nn.Module.__hash__(self)

    def __getstate__(self) -> dict[str, Any]:
        # What is kept for the next call is part of this one's graph, which is not copied.
        return {**super().__getstate__(), "_cached_x_y": (None, None), "_cached_log_det": None}

    def condition(self, context: Tensor) -> FlowTransform:
        """The same transform, parameters and all, given a context (..., F)."""
        return FlowTransform(self.of, context, cache_size=self._cache_size)

    def with_cache(self, cache_size: int = 1) -> FlowTransform:
        return self if self._cache_size == cache_size else FlowTransform(self.of, self.context, cache_size=cache_size)

    @property
    def sign(self) -> int:  # type: ignore[override]
        """That of the determinant: of the permutations alone, all else is increasing."""
        return _sign(self._transform)

    @property
    def _transform(self) -> Transform:
        return self.of.transform if isinstance(self.of, Flow) else self.of

    def _seen(self) -> Tensor | None:
        return self.of.seen_context(self.context) if isinstance(self.of, Flow) else self.context

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._transform.inverse(x, self._seen())
        self._keep(log_det)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._transform(y, self._seen())
        self._keep(-log_det)
        return x

    def _keep(self, log_det: Tensor) -> None:
        self._cached_log_det = log_det if self._cache_size else None

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log|det dy/dx| (...) in nats: what was found with y and x if these are the latest pair, else found again from x."""
        if self._cached_log_det is not None:
            latest: tuple[Any, Any] = self._cached_x_y
            if x is latest[0] and y is latest[1]:
                return self._cached_log_det
        return self._transform.inverse(x, self._seen())[1]


def _sign(transform: Transform) -> int:
    if isinstance(transform, Composed):
        signs = [_sign(part) for part in transform]
        return -1 if signs.count(-1) % 2 else 1
    if isinstance(transform, Inverse | Unconditional):
        return _sign(transform.transform)
    if isinstance(transform, Permutation):
        order = transform.order.cpu()
        inversions = (order[:, None] > order).triu(1).sum()
        return -1 if inversions % 2 else 1
    if not type(transform).__module__.startswith("fastgen."):
        raise NotImplementedError(f"sign: not known for {type(transform).__name__}")
    return 1


def as_distribution(flow: Flow, context: Tensor | None = None, *, validate_args: bool | None = None) -> FlowDistribution:
    """A flow as a distribution of `torch.distributions`.

    Where Pyro has been imported it is one of Pyro's too, for models and guides.

    Args:
        flow: its parameters are used as they are, and trained through what is drawn and scored.
        context: (*batch_shape, F); None for a flow without one.
        validate_args: as every distribution's.

    Raises:
        TypeError: something else than a flow, or one whose base does not tell its number of features.
    """
    return _kind()(flow, context, validate_args=validate_args)


def _kind() -> type[FlowDistribution]:
    pyro = sys.modules.get("pyro.distributions.torch_distribution")
    return FlowDistribution if pyro is None else _with(pyro.TorchDistributionMixin)


@cache
def _with(mixin: type) -> type[FlowDistribution]:
    return type("FlowDistribution", (FlowDistribution, mixin), {})


class FlowDistribution(torch.distributions.Distribution):
    """What `as_distribution` gives: batch_shape that of the context, event_shape (D,), of images (C, H, W).

    `rsample` is there where the flow's base has samples with gradients. The latest draw of it keeps its log-density: scoring
    the very tensor that was drawn costs nothing more, as long as no parameter has changed.
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012

    def __init__(
        self,
        flow: Flow,
        context: Tensor | None = None,
        *,
        batch_shape: Sequence[int] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(flow, Flow):
            raise TypeError(f"flow: expected a Flow, found {type(flow).__name__}")
        if flow.base.features is None:
            raise TypeError(f"flow: expected a base that tells its features, found {type(flow.base).__name__}")
        self.flow, self.context = flow, context
        if batch_shape is None:
            batch_shape = () if context is None else context.shape[:-1]
        self._drawn: tuple[Tensor, Tensor, list[int]] | None = None
        event_shape = torch.Size(flow.shape or (flow.base.features,))
        super().__init__(torch.Size(batch_shape), event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.flow.base.reparameterised

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        return _support(self.flow)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        new = self._get_checked_instance(FlowDistribution, _instance)
        context = self.context
        if context is not None:
            context = context.expand(*batch_shape, context.shape[-1])
        FlowDistribution.__init__(new, self.flow, context, batch_shape=batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        # What was drawn is part of a graph, which is not copied; and a class of Pyro's has no name to be found by.
        return _again, (self.flow, self.context, tuple(self.batch_shape), self._validate_args)

    def _shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """What a flow is asked for, which adds the batch of a context itself."""
        return (*sample_shape, *(self.batch_shape if self.context is None else ()))

    def _versions(self) -> list[int]:
        return [parameter._version for parameter in self.flow.parameters()]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        return self.flow.sample(self._shape(sample_shape), self.context)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        if not self.has_rsample:
            raise NotImplementedError(f"rsample: {type(self.flow.base).__name__} has no samples with gradients")
        x, log_prob = self.flow.sample_and_log_prob(self._shape(sample_shape), self.context)
        self._drawn = x, log_prob, self._versions()
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn is not None and value is self._drawn[0]:
            _, log_prob, versions = self._drawn
            # One drawn without gradients has none to give.
            if versions == self._versions() and (log_prob.requires_grad or not torch.is_grad_enabled()):
                return log_prob
        if self._validate_args:
            self._validate_sample(value)
        found = self.flow.log_prob(value, self.context)
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.dim() - len(self.event_shape)])
        return found.expand(batch)


def _again(flow: Flow, context: Tensor | None, batch_shape: tuple[int, ...], validate_args: bool) -> FlowDistribution:
    return _kind()(flow, context, batch_shape=batch_shape, validate_args=validate_args)


def _support(flow: Flow) -> Constraint:
    """Real vectors; where the data have bounds, what lies between them."""
    parts = list(flow.transform) if isinstance(flow.transform, Composed) else [flow.transform]
    first = list(itertools.takewhile(lambda part: isinstance(part, TO_REAL_NUMBERS), parts))
    events = len(flow.shape or (0,))
    if not first:
        return constraints.independent(constraints.real, events)
    assert flow.base.features is not None
    like = placed_like(flow, torch.empty(0))
    ends = [torch.full((flow.base.features,), end, dtype=like.dtype, device=like.device) for end in (-torch.inf, torch.inf)]
    for part in reversed(first):
        ends = [part.inverse(end)[0] for end in ends]
    low, high = (end if flow.shape is None else end.unflatten(-1, flow.shape) for end in ends)
    return constraints.independent(constraints.interval(low, high), events)
