"""The log-probabilities of what decoders put out, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .. import backends, reference
from ..reference.accumulate import accumulator
from . import _check
from ._library import apply, differentiable, empty_rows, per_row, register, room_for, twice_differentiable, wanted


def _bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    if backends.on_triton(x):
        return backends.kernels("likelihoods").bernoulli_forward(x, logits)
    log_prob = per_row(x)
    backends.compiled().bernoulli_log_prob_forward(x, logits, log_prob)
    return log_prob


def _bernoulli_backward(grad: Tensor, x: Tensor, logits: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor]:
    if backends.on_triton(x):
        return backends.kernels("likelihoods").bernoulli_backward(grad, x, logits, needs)
    room = _bernoulli_backward_fake(grad, x, logits, needs)
    backends.compiled().bernoulli_log_prob_backward(grad, x, logits, *room)
    return room


def _bernoulli_backward_fake(grad: Tensor, x: Tensor, logits: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor]:
    return room_for(needs, x, logits)  # type: ignore[return-value]


def _logistic(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    if backends.on_triton(x):
        return backends.kernels("likelihoods").discretized_logistic_forward(x, mean, log_scale, levels)
    log_prob = per_row(x)
    backends.compiled().discretized_logistic_log_prob_forward(x, mean, log_scale, levels, log_prob)
    return log_prob


def _logistic_backward(
    grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        return backends.kernels("likelihoods").discretized_logistic_backward(grad, x, mean, log_scale, levels, needs)
    room = _logistic_backward_fake(grad, x, mean, log_scale, levels, needs)
    backends.compiled().discretized_logistic_log_prob_backward(grad, x, mean, log_scale, levels, *room)
    return room


def _logistic_backward_fake(
    grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return room_for(needs, x, mean, log_scale)  # type: ignore[return-value]


def _categorical(x: Tensor, logits: Tensor) -> Tensor:
    if backends.on_triton(logits):
        flat = backends.kernels("likelihoods").categorical_forward(*_positions(x, logits))
        return flat.view(x.shape).sum(-1)
    positions = torch.empty_like(x, dtype=accumulator(logits.dtype), memory_format=torch.contiguous_format)
    backends.compiled().categorical_log_prob_forward(_merged(x, 0), _merged(logits, 1), _merged(positions, 0))
    return positions.sum(-1)


def _categorical_fake(x: Tensor, logits: Tensor) -> Tensor:
    return logits.new_empty(x.shape[:-1], dtype=accumulator(logits.dtype))


def _categorical_backward(grad: Tensor, x: Tensor, logits: Tensor) -> Tensor:
    features = x.shape[-1]
    if backends.on_triton(logits):
        kernel = backends.kernels("likelihoods")
        return kernel.categorical_backward(grad.reshape(-1), *_positions(x, logits), features).view(logits.shape)
    glogits = empty_rows(logits)
    given = _merged(grad, 0), _merged(x, 0), _merged(logits, 1)
    backends.compiled().categorical_log_prob_backward(*given, features, _merged(glogits, 1))
    return glogits


def _categorical_backward_fake(grad: Tensor, x: Tensor, logits: Tensor) -> Tensor:
    return empty_rows(logits)


def _positions(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Those of all rows: x (positions,) and logits (positions, C)."""
    return x.reshape(-1), logits.reshape(-1, logits.shape[-1])


def _merged(t: Tensor, kept: int) -> Tensor:
    """t with all axes but the last `kept` made one, unless the C++ kernels do that themselves."""
    return t if kept < t.dim() <= 4 and t.is_contiguous() else t.reshape(-1, *t.shape[t.dim() - kept :])


_call_bernoulli = register("bernoulli_log_prob(Tensor x, Tensor logits) -> Tensor", _bernoulli, lambda x, logits: per_row(x))
_call_bernoulli_backward = register(
    "bernoulli_log_prob_backward(Tensor grad, Tensor x, Tensor logits, bool[] needs) -> (Tensor, Tensor)",
    _bernoulli_backward,
    _bernoulli_backward_fake,
)
_call_logistic = register(
    "discretized_logistic_log_prob(Tensor x, Tensor mean, Tensor log_scale, int levels) -> Tensor",
    _logistic,
    lambda x, mean, log_scale, levels: per_row(x),
)
_call_logistic_backward = register(
    "discretized_logistic_log_prob_backward(Tensor grad, Tensor x, Tensor mean, Tensor log_scale, int levels, bool[] needs)"
    " -> (Tensor, Tensor, Tensor)",
    _logistic_backward,
    _logistic_backward_fake,
)
_call_categorical = register("categorical_log_prob(Tensor x, Tensor logits) -> Tensor", _categorical, _categorical_fake)
_call_categorical_backward = register(
    "categorical_log_prob_backward(Tensor grad, Tensor x, Tensor logits) -> Tensor",
    _categorical_backward,
    _categorical_backward_fake,
)


class _BernoulliLogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, logits: Tensor) -> Tensor:
        return _call_bernoulli(x, logits)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        needs = ctx.needs_input_grad
        if twice_differentiable():
            return tuple(differentiable(reference.bernoulli_log_prob, ctx.saved_tensors, needs, (grad,)))
        return tuple(wanted(_call_bernoulli_backward(grad, *ctx.saved_tensors, needs), needs))


class _DiscretizedLogisticLogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
        return _call_logistic(x, mean, log_scale, levels)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        *tensors, ctx.levels = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        needs = ctx.needs_input_grad[:3]
        if twice_differentiable():

            def definition(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
                return reference.discretized_logistic_log_prob(x, mean, log_scale, levels=ctx.levels)

            return *differentiable(definition, ctx.saved_tensors, needs, (grad,)), None
        return *wanted(_call_logistic_backward(grad, *ctx.saved_tensors, ctx.levels, needs), needs), None


class _CategoricalLogProb(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, logits: Tensor) -> Tensor:
        return _call_categorical(x, logits)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, logits = ctx.saved_tensors
        if twice_differentiable():
            definition = partial(reference.categorical_log_prob, x)
            return None, *differentiable(definition, (logits,), (True,), (grad,))
        return None, _call_categorical_backward(grad, x, logits)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """sum of x log sigmoid(l) + (1 - x) log sigmoid(-l) over the last axis: the ELBO's reconstruction term, per row.

    An infinite logit is a certain outcome: log-probability 0 where it happens, -inf where it does not.

    Args:
        x: (..., D), in [0, 1], floating; any strides, any number of rows.
        logits: l, (..., D), of x's dtype and device; x and logits broadcast against each other.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32. Under autocast half inputs are computed in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    if backends.alike(x, logits):
        return apply(_BernoulliLogProb, x, logits)
    x, logits = _check.upcast(x, logits)  # type: ignore[assignment]
    shape = _validate(x=x, logits=logits)
    if backends.choose("bernoulli_log_prob", x, logits).backend == "reference":
        return reference.bernoulli_log_prob(x, logits)
    return _batched(apply(_BernoulliLogProb, _rows(x, shape), _rows(logits, shape)), shape)


def discretized_logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor, *, levels: int = 256) -> Tensor:
    """sum of the log-probability that a logistic variable gives the interval around each level, over the last axis.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", appendix C.6: sigmoid((x + h - mean)
    e^-log_scale) - sigmoid((x - h - mean) e^-log_scale), h = 1 / (2 (levels - 1)); the intervals at 0 and 1 have no other end.

    Args:
        x: (..., D), on the grid 0, 1 / (levels - 1), ..., 1, floating; any strides, any number of rows.
        mean, log_scale: (..., D), of x's dtype and device; all three broadcast against one another.
        levels: how many grid points, at least 2.

    Returns:
        (...,) in nats: float64 for float64 inputs, else float32. Under autocast half inputs are computed in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape or number that does not fit.
    """
    if levels >= 2 and backends.alike(x, mean, log_scale):
        return apply(_DiscretizedLogisticLogProb, x, mean, log_scale, levels)
    x, mean, log_scale = _check.upcast(x, mean, log_scale)  # type: ignore[assignment]
    shape = _validate(x=x, mean=mean, log_scale=log_scale)
    if levels < 2:
        raise ValueError(f"levels: expected at least 2, found {levels}")
    if backends.choose("discretized_logistic_log_prob", x, mean, log_scale).backend == "reference":
        return reference.discretized_logistic_log_prob(x, mean, log_scale, levels=levels)
    rows = (_rows(t, shape) for t in (x, mean, log_scale))
    return _batched(apply(_DiscretizedLogisticLogProb, *rows, levels), shape)


def categorical_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """sum of log softmax(logits)_x over the features.

    Args:
        x: (..., D), int64, categories 0..C-1; another number gives NaN, or raises where the reference runs.
        logits: (..., D, C), floating, on x's device; its axes before the last and x's broadcast against each other.

    Returns:
        (...,) in nats: float64 for float64 logits, else float32. Under autocast half logits are computed in float32.

    Raises:
        TypeError, ValueError: a dtype, device or shape that does not fit.
    """
    (logits,) = _check.upcast(logits)  # type: ignore[assignment]
    _check.floating(logits, "logits")
    _check.features(logits, "logits")
    if not isinstance(x, Tensor) or x.dtype != torch.int64:
        raise TypeError(f"x: expected an int64 tensor, found {getattr(x, 'dtype', type(x).__name__)}")
    if x.device != logits.device:
        raise ValueError(f"x: expected logits' device {logits.device}, found {x.device}")
    _check.features(x, "x")
    if 0 in logits.shape[-2:-1] or logits.dim() < 2:
        _check.features(logits[..., 0], "logits[..., 0]")
    shape = _broadcast(x=x.shape, logits=logits.shape[:-1])
    if backends.choose("categorical_log_prob", logits, x).backend == "reference":
        return reference.categorical_log_prob(x, logits)
    x = x if x.shape == shape else x.expand(shape)
    logits = logits if logits.shape[:-1] == shape else logits.expand(*shape, logits.shape[-1])
    return apply(_CategoricalLogProb, x, logits)


def _rows(t: Tensor, shape: torch.Size) -> Tensor:
    """t at this shape, as a matrix: outside the Function, so that autograd sums the gradient of what was broadcast."""
    t = t if t.shape == shape else t.expand(shape)
    return t if t.dim() == 2 else t.reshape(-1, shape[-1])


def _batched(log_prob: Tensor, shape: torch.Size) -> Tensor:
    # No view of what has its shape, which autograd would follow.
    return log_prob if len(shape) == 2 else log_prob.view(shape[:-1])


def _validate(**tensors: Tensor) -> torch.Size:
    """The common shape of floating tensors; the first is what the others are like."""
    (first_name, first), *others = tensors.items()
    _check.floating(first, first_name)
    _check.features(first, first_name)
    for name, t in others:
        _check.like(t, name, first, first_name)
        _check.features(t, name)
    return _broadcast(**{name: t.shape for name, t in tensors.items()})


def _broadcast(**shapes: torch.Size) -> torch.Size:
    shape, *others = shapes.values()
    if all([other == shape for other in others]):
        return shape
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{', '.join(shapes)}: expected shapes that broadcast, found {found}") from None
