"""Coupling layers as operations: affine, and additive, which is the same without a log-scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference import Checkerboard, ScaleMap
from ..reference.coupling import MASKED_AXIS, Mask
from . import _check
from ._coupling_plan import CouplingPlan, make_coupling_plan
from ._library import apply, differentiable, per_row, register, twice_differentiable, wanted


def _order(x: Tensor) -> torch.memory_format:
    """The order results are laid out in: that of x's memory."""
    return torch.channels_last if x.dim() == 4 and x.stride(1) < x.stride(3) else torch.contiguous_format


def _room(x: Tensor, channels: int) -> Tensor:
    """Room for a result as x, of so many features or channels."""
    if x.dim() == 2:
        return x.new_empty(x.shape[0], channels)
    shape = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_order(x))


def _sites(t: Tensor | None) -> Tensor | None:
    """(B, D) or (B, C, H, W) as (B, C, S), a view where it can be."""
    return t if t is None else t.flatten(2) if t.dim() == 4 else t.unsqueeze(2)


def _from_sites(t: Tensor, x: Tensor) -> Tensor:
    return t.view(*t.shape[:2], *x.shape[2:]).contiguous(memory_format=_order(x))


def _pattern(x: Tensor, places: Tensor | None, parity: int) -> tuple[int, int] | None:
    """The width and the parity of a checkerboard."""
    return (x.shape[3], parity) if places is None else None


def _forward(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    log_det: Tensor | None,
    places: Tensor | None,
    parity: int,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(x):
        tensors = (_sites(x), _sites(shift), _sites(log_scale), log_det, places, _pattern(x, places, parity))
        y, total = backends.kernels("coupling").forward(*tensors, inverse, kind, first, second)
        return _from_sites(y, x), total
    y, total = _forward_fake(x, shift, log_scale, log_det, places, parity, inverse, kind, first, second)
    backends.compiled().coupling_forward(x, shift, log_scale, log_det, places, parity, inverse, kind, first, second, y, total)
    return y, total


def _forward_fake(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    log_det: Tensor | None,
    places: Tensor | None,
    parity: int,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
) -> tuple[Tensor, Tensor]:
    return _room(x, x.shape[1]), per_row(x)


def _backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    places: Tensor | None,
    parity: int,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    if backends.on_triton(x):
        tensors = (_sites(grad_y), grad_log_det, _sites(x), _sites(shift), _sites(log_scale), places)
        grads = backends.kernels("coupling").backward(
            *tensors, _pattern(x, places, parity), inverse, kind, first, second, needs
        )
        return tuple([None if g is None else _from_sites(g, x) for g in grads])  # type: ignore[return-value]
    room = _backward_fake(grad_y, grad_log_det, x, shift, log_scale, places, parity, inverse, kind, first, second, needs)
    backends.compiled().coupling_backward(
        grad_y, grad_log_det, x, shift, log_scale, places, parity, inverse, kind, first, second, *room
    )
    return room


def _backward_fake(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    places: Tensor | None,
    parity: int,
    inverse: bool,
    kind: int,
    first: float,
    second: float,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients of x, shift and log_scale; None where one is not needed."""
    channels = (x.shape[1], shift.shape[1], shift.shape[1])
    return tuple([_room(x, c) if n else None for c, n in zip(channels, needs, strict=True)])  # type: ignore[return-value]


_call = register(
    "coupling(Tensor x, Tensor shift, Tensor? log_scale, Tensor? log_det, Tensor? places, int parity, bool inverse, int kind,"
    " float first, float second) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_call_backward = register(
    "coupling_backward(Tensor? grad_y, Tensor? grad_log_det, Tensor x, Tensor shift, Tensor? log_scale, Tensor? places,"
    " int parity, bool inverse, int kind, float first, float second, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


# That of an additive coupling, which has no log-scale.
_NO_MAP = ScaleMap().code


class _AffineCoupling(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        shift: Tensor,
        log_scale: Tensor,
        log_det: Tensor | None,
        mask: Mask,
        places: Tensor | None,
        inverse: bool,
        scale_map: ScaleMap,
    ) -> tuple[Tensor, Tensor]:
        return _call(x, shift, log_scale, log_det, places, _parity(mask), inverse, *scale_map.code)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        x, shift, log_scale, _, ctx.mask, ctx.places, ctx.inverse, ctx.scale_map = inputs
        ctx.save_for_backward(x, shift, log_scale)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_y, grad_log_det):  # type: ignore[no-untyped-def]
        inputs = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        grads: Sequence[Tensor | None] = (None, None, None)
        passed = grad_log_det if ctx.needs_input_grad[3] else None
        if not any(needs) or (grad_y is None and grad_log_det is None):
            return *grads, passed, None, None, None, None
        if twice_differentiable():
            options = {"event_dims": inputs[0].dim() - 1, "inverse": ctx.inverse, "scale_map": ctx.scale_map}

            def definition(x: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
                return reference.affine_coupling(x, shift, log_scale, ctx.mask, **options)

            grads = differentiable(definition, inputs, needs, (grad_y, grad_log_det))
        else:
            code = _parity(ctx.mask), ctx.inverse, *ctx.scale_map.code
            raw = _call_backward(grad_y, grad_log_det, *inputs, ctx.places, *code, needs)
            grads = wanted(raw, needs)
        return *grads, passed, None, None, None, None


class _AdditiveCoupling(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, shift: Tensor, log_det: Tensor | None, mask: Mask, places: Tensor | None, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        return _call(x, shift, None, log_det, places, _parity(mask), inverse, *_NO_MAP)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        _, shift, log_det, ctx.mask, ctx.places, ctx.inverse = inputs
        ctx.channels = shift.shape[1]
        if log_det is None:
            ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_y, grad_log_det):  # type: ignore[no-untyped-def]
        needs_x, needs_shift, needs_log_det, *_ = ctx.needs_input_grad
        gx, gshift = grad_y if needs_x else None, None
        if needs_shift and grad_y is not None:
            if twice_differentiable():
                gshift = _gradient_of_shift(grad_y, ctx.mask, ctx.channels, ctx.inverse)
            else:
                # The kernel asks for the shapes of x and shift, not for what they were.
                likes = grad_y, grad_y if ctx.channels == grad_y.shape[1] else grad_y[:, : ctx.channels]
                code = _parity(ctx.mask), ctx.inverse, *_NO_MAP
                gshift = _call_backward(grad_y, None, *likes, None, ctx.places, *code, [False, True, False])[1]
        return gx, gshift, grad_log_det if needs_log_det else None, None, None, None


def _gradient_of_shift(grad_y: Tensor, mask: Mask, channels: int, inverse: bool) -> Tensor:
    """That of an additive coupling, by its definition: where the mask is True the gradient of y, its sign that of the shift."""
    shifted, _ = reference.additive_coupling(
        torch.zeros_like(grad_y), grad_y, mask, event_dims=grad_y.dim() - 1, inverse=inverse
    )
    return shifted[:, mask] if isinstance(mask, Tensor) and channels != grad_y.shape[1] else shifted


def _parity(mask: Mask) -> int:
    return mask.parity if isinstance(mask, Checkerboard) else 0


def affine_coupling(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor,
    mask: Mask,
    *,
    event_dims: int = 1,
    inverse: bool = False,
    scale_map: ScaleMap = ScaleMap(),
    log_det: Tensor | None = None,
    plan: CouplingPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """y = x e^s + t and log_det = +sum s where the mask is True, y = x elsewhere; inverse: y = (x - t) e^-s and -sum s.

    t is the shift and s = scale_map(log_scale); the sum is over the entries where the mask is True. Dinh et al. 2017,
    "Density estimation using Real NVP", equations 7 and 8. The inputs are read where they lie: halves of a network's output
    are not copied.

    Args:
        x: vectors (..., D) with event_dims 1, images (..., C, H, W), contiguous or channels_last, with event_dims 3; of a
            floating dtype, any strides, any number of rows.
        shift, log_scale: of x's dtype and device, and of its shape, not read where the mask is False; or compact, the entries
            where a mask of features or channels is True only, in order.
        mask: bool, (D,) for vectors or (C,) for images, on the CPU, True where an entry is transformed; or, for images, a
            Checkerboard.
        inverse: the other direction.
        scale_map: from `log_scale`, the raw network output, to s.
        log_det: (...,), read and added to the result, of the result's dtype.
        plan: what `make_coupling_plan` made of the mask for x's device; without it this call makes one.

    Returns:
        y of x's shape, dtype and memory format, and log_det (...,) in nats: float64 for float64 inputs, else float32. Under
        autocast half inputs are computed, and y returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape or mask that does not fit.
    """
    if log_det is None and event_dims == 1 and backends.alike(x, shift, log_scale):
        places = _plan_of(x, mask, plan, event_dims).places
        return apply(_AffineCoupling, x, shift, log_scale, None, mask, places, inverse, scale_map)
    x, shift, log_scale = _check.upcast(x, shift, log_scale)  # type: ignore[assignment]
    plan = _validate(x, {"shift": shift, "log_scale": log_scale}, log_det, mask, plan, event_dims)
    if backends.choose("affine_coupling", x, shift, log_scale, log_det).backend == "reference":
        return reference.affine_coupling(
            x, shift, log_scale, mask, event_dims=event_dims, inverse=inverse, scale_map=scale_map, log_det=log_det
        )
    return _couple(x, shift, log_scale, log_det, mask, plan, event_dims, inverse, scale_map)


def additive_coupling(
    x: Tensor,
    shift: Tensor,
    mask: Mask,
    *,
    event_dims: int = 1,
    inverse: bool = False,
    log_det: Tensor | None = None,
    plan: CouplingPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """y = x + shift where the mask is True, y = x elsewhere; inverse: y = x - shift. log_det is that given, or zeros.

    Dinh et al. 2015, "NICE: Non-linear Independent Components Estimation", section 3.2. Arguments, results and errors as those
    of `affine_coupling`. The gradients need neither x nor shift: nothing is kept for them.
    """
    if log_det is None and event_dims == 1 and backends.alike(x, shift):
        return apply(_AdditiveCoupling, x, shift, None, mask, _plan_of(x, mask, plan, event_dims).places, inverse)
    x, shift = _check.upcast(x, shift)  # type: ignore[assignment]
    plan = _validate(x, {"shift": shift}, log_det, mask, plan, event_dims)
    if backends.choose("additive_coupling", x, shift, log_det).backend == "reference":
        return reference.additive_coupling(x, shift, mask, event_dims=event_dims, inverse=inverse, log_det=log_det)
    return _couple(x, shift, None, log_det, mask, plan, event_dims, inverse, ScaleMap())


def _couple(
    x: Tensor,
    shift: Tensor,
    log_scale: Tensor | None,
    log_det: Tensor | None,
    mask: Mask,
    plan: CouplingPlan,
    event_dims: int,
    inverse: bool,
    scale_map: ScaleMap,
) -> tuple[Tensor, Tensor]:
    batch = x.shape[: x.dim() - event_dims]
    if len(batch) != 1:
        # No -1: a compact shift may have no elements at all.
        rows = math.prod(batch)
        x, shift = (t.reshape(rows, *t.shape[len(batch) :]) for t in (x, shift))
        log_scale = None if log_scale is None else log_scale.reshape(rows, *log_scale.shape[len(batch) :])
        log_det = None if log_det is None else log_det.reshape(-1)
    if log_scale is None:
        y, total = apply(_AdditiveCoupling, x, shift, log_det, mask, plan.places, inverse)
    else:
        y, total = apply(_AffineCoupling, x, shift, log_scale, log_det, mask, plan.places, inverse, scale_map)
    return (y, total) if len(batch) == 1 else (y.view(*batch, *y.shape[1:]), total.view(batch))


def _validate(
    x: Tensor, params: dict[str, Tensor], log_det: Tensor | None, mask: Mask, plan: CouplingPlan | None, event_dims: int
) -> CouplingPlan:
    """Raises TypeError or ValueError for what does not fit; else the plan."""
    _check.floating(x, "x")
    if event_dims not in MASKED_AXIS:
        raise ValueError(f"event_dims: expected 1 or 3, found {event_dims!r}")
    event = x.shape[-event_dims:]
    if len(event) < event_dims or 0 in event:
        wanted = "(..., at least 1)" if event_dims == 1 else "(..., C, H, W) with C, H, W >= 1"
        raise ValueError(f"x: expected shape {wanted}, found {tuple(x.shape)}")
    plan = _plan_of(x, mask, plan, event_dims)
    for name, t in params.items():
        _check.like(t, name, x, "x")
        _check_width(t, name, x, plan, event_dims)
        if t.shape != params["shift"].shape:
            raise ValueError(f"{name}: expected shift's shape {tuple(params['shift'].shape)}, found {tuple(t.shape)}")
    if log_det is not None:
        _check.per_row(log_det, "log_det", x, "x", event_dims)
    return plan


def _plan_of(x: Tensor, mask: Mask, plan: CouplingPlan | None, event_dims: int) -> CouplingPlan:
    """The plan, made where it is None. Raises TypeError or ValueError unless it fits the mask, and both x."""
    plan = make_coupling_plan(mask, x.device) if plan is None else plan
    masked = x.shape[MASKED_AXIS[event_dims]]
    if plan.places is None and event_dims == 1:
        raise ValueError("mask: expected a bool tensor for vectors, found a Checkerboard")
    if plan.places is not None and plan.places.shape[0] != masked:
        raise ValueError(f"mask: expected shape ({masked},), found ({plan.places.shape[0]},)")
    # The kernels go by the plan, the definition by the mask.
    if isinstance(mask, Checkerboard) != (plan.places is None) or not isinstance(mask, (Tensor, Checkerboard)):
        found = "a Checkerboard" if plan.places is None else "a bool tensor"
        raise ValueError(f"plan: expected that of the mask, a {type(mask).__name__}, found that of {found}")
    if plan.places is not None and plan.places.device != x.device:
        raise ValueError(f"plan: expected one for x's device {x.device}, found one for {plan.places.device}")
    return plan


def _check_width(t: Tensor, name: str, x: Tensor, plan: CouplingPlan, event_dims: int) -> None:
    if t.shape == x.shape:
        return
    compact = list(x.shape)
    compact[MASKED_AXIS[event_dims]] = plan.transformed
    if plan.places is None or list(t.shape) != compact:
        wanted = f"{tuple(x.shape)}" if plan.places is None else f"{tuple(x.shape)}, or compact {tuple(compact)}"
        raise ValueError(f"{name}: expected shape {wanted}, found {tuple(t.shape)}")
