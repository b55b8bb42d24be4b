"""Reparameterised samples of a diagonal Gaussian, with its divergence or its log-ratio, as operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends, reference
from ..reference.accumulate import accumulator
from ..reference.gaussian_rsample_kl import draw_seed
from . import _check
from ._library import apply, differentiable, per_row, register, room_for, twice_differentiable, wanted

_Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _kl_forward(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(mean):
        kernel = backends.kernels("gaussian_rsample_kl")
        return kernel.kl_forward(mean, log_var, prior_mean, prior_log_var, samples, free_bits, seed)
    z, kl = _kl_forward_fake(mean, log_var, prior_mean, prior_log_var, samples, free_bits, seed)
    backends.compiled().gaussian_rsample_kl_forward(mean, log_var, prior_mean, prior_log_var, samples, free_bits, seed, z, kl)
    return z, kl


def _kl_forward_fake(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
) -> tuple[Tensor, Tensor]:
    return mean.new_empty((samples, *mean.shape)), per_row(mean)


def _kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
    needs: Sequence[bool],
) -> _Four:
    inputs = grad_z, grad_kl, mean, log_var, prior_mean, prior_log_var, samples, free_bits, seed
    if backends.on_triton(mean):
        return backends.kernels("gaussian_rsample_kl").kl_backward(*inputs, needs)
    room = room_for(needs, mean, mean, mean, mean)
    backends.compiled().gaussian_rsample_kl_backward(*inputs, *room)
    return room  # type: ignore[return-value]


def _kl_backward_fake(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    free_bits: float,
    seed: Tensor,
    needs: Sequence[bool],
) -> _Four:
    return room_for(needs, mean, mean, mean, mean)  # type: ignore[return-value]


def _log_ratio_forward(
    mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None, samples: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    if backends.on_triton(mean):
        kernel = backends.kernels("gaussian_rsample_kl")
        return kernel.log_ratio_forward(mean, log_var, prior_mean, prior_log_var, samples, seed)
    z, ratio = _log_ratio_forward_fake(mean, log_var, prior_mean, prior_log_var, samples, seed)
    backends.compiled().gaussian_rsample_log_ratio_forward(mean, log_var, prior_mean, prior_log_var, samples, seed, z, ratio)
    return z, ratio


def _log_ratio_forward_fake(
    mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None, samples: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    dtype = accumulator(mean.dtype)
    return mean.new_empty((samples, *mean.shape)), mean.new_empty((samples, mean.shape[0]), dtype=dtype)


def _log_ratio_backward(
    grad_z: Tensor | None,
    grad_log_ratio: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    seed: Tensor,
    needs: Sequence[bool],
) -> _Four:
    inputs = grad_z, grad_log_ratio, mean, log_var, prior_mean, prior_log_var, samples, seed
    if backends.on_triton(mean):
        return backends.kernels("gaussian_rsample_kl").log_ratio_backward(*inputs, needs)
    room = room_for(needs, mean, mean, mean, mean)
    backends.compiled().gaussian_rsample_log_ratio_backward(*inputs, *room)
    return room  # type: ignore[return-value]


def _log_ratio_backward_fake(
    grad_z: Tensor | None,
    grad_log_ratio: Tensor | None,
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None,
    prior_log_var: Tensor | None,
    samples: int,
    seed: Tensor,
    needs: Sequence[bool],
) -> _Four:
    return room_for(needs, mean, mean, mean, mean)  # type: ignore[return-value]


_GAUSSIANS = "Tensor mean, Tensor log_var, Tensor? prior_mean, Tensor? prior_log_var, int samples"
_call_kl = register(
    f"gaussian_rsample_kl({_GAUSSIANS}, float free_bits, Tensor seed) -> (Tensor, Tensor)", _kl_forward, _kl_forward_fake
)
_call_kl_backward = register(
    f"gaussian_rsample_kl_backward(Tensor? grad_z, Tensor? grad_kl, {_GAUSSIANS}, float free_bits, Tensor seed, bool[] needs)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _kl_backward,
    _kl_backward_fake,
)
_call_log_ratio = register(
    f"gaussian_rsample_log_ratio({_GAUSSIANS}, Tensor seed) -> (Tensor, Tensor)", _log_ratio_forward, _log_ratio_forward_fake
)
_call_log_ratio_backward = register(
    f"gaussian_rsample_log_ratio_backward(Tensor? grad_z, Tensor? grad_log_ratio, {_GAUSSIANS}, Tensor seed, bool[] needs)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _log_ratio_backward,
    _log_ratio_backward_fake,
)


class _GaussianRsampleKl(torch.autograd.Function):
    @staticmethod
    def forward(
        mean: Tensor,
        log_var: Tensor,
        prior_mean: Tensor | None,
        prior_log_var: Tensor | None,
        seed: Tensor,
        samples: int | None,
        free_bits: float,
    ) -> tuple[Tensor, Tensor]:
        z, kl = _call_kl(mean, log_var, prior_mean, prior_log_var, samples or 1, free_bits, seed)
        return z.squeeze(0) if samples is None else z, kl

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        *tensors, ctx.samples, ctx.free_bits = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_z, grad_kl):  # type: ignore[no-untyped-def]
        *inputs, seed = ctx.saved_tensors
        needs = ctx.needs_input_grad[:4]
        options = {"samples": ctx.samples, "free_bits": ctx.free_bits, "seed": seed}
        if grad_z is None and grad_kl is None:
            return (None,) * 7
        if twice_differentiable():
            grads = differentiable(
                lambda *gaussians: reference.gaussian_rsample_kl(*gaussians, **options), inputs, needs, (grad_z, grad_kl)
            )
        else:
            if grad_z is not None and ctx.samples is None:
                grad_z = grad_z.unsqueeze(0)
            raw = _call_kl_backward(grad_z, grad_kl, *inputs, ctx.samples or 1, ctx.free_bits, seed, needs)
            grads = wanted(raw, needs)
        return *grads, None, None, None


class _GaussianRsampleLogRatio(torch.autograd.Function):
    @staticmethod
    def forward(
        mean: Tensor,
        log_var: Tensor,
        prior_mean: Tensor | None,
        prior_log_var: Tensor | None,
        seed: Tensor,
        samples: int,
    ) -> tuple[Tensor, Tensor]:
        return _call_log_ratio(mean, log_var, prior_mean, prior_log_var, samples, seed)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        *tensors, ctx.samples = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_z, grad_log_ratio):  # type: ignore[no-untyped-def]
        *inputs, seed = ctx.saved_tensors
        needs = ctx.needs_input_grad[:4]
        if grad_z is None and grad_log_ratio is None:
            return (None,) * 6
        if twice_differentiable():
            grads = differentiable(
                lambda *gaussians: reference.gaussian_rsample_log_ratio(*gaussians, samples=ctx.samples, seed=seed),
                inputs,
                needs,
                (grad_z, grad_log_ratio),
            )
        else:
            raw = _call_log_ratio_backward(grad_z, grad_log_ratio, *inputs, ctx.samples, seed, needs)
            grads = wanted(raw, needs)
        return *grads, None, None


def gaussian_rsample_kl(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_var: Tensor | None = None,
    *,
    samples: int | None = None,
    free_bits: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z = mean + e^{log_var / 2} eps with eps ~ N(0, I), and KL(N(mean, e^log_var) || prior), in one pass.

    Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 2.4 and appendix B:
    KL = 1/2 sum_j [e^d - 1 - d + (mean - prior_mean)^2 e^-prior_log_var], d = log_var - prior_log_var. The noise is a
    function of the seed and of the element's index in z (Philox, `fastgen.reference.philox`): it is made again in the
    backward pass and never stored.

    Args:
        mean: (..., D), floating; any strides, any number of rows.
        log_var: broadcastable to mean, of its dtype and device; any strides.
        prior_mean, prior_log_var: likewise; None, both, for the standard normal.
        samples: how many z for each row; None for one without an axis of its own.
        free_bits: lambda >= 0 in nats: each feature counts max(KL_j, lambda), without gradient below (Kingma et al. 2016,
            "Improving Variational Inference with Inverse Autoregressive Flow", appendix C.8, for each row alone).
        seed: int64, one number on mean's device, which is not read on the host; None draws one from torch's generator there.

    Returns:
        z of mean's dtype, (..., D) or (samples, ..., D), and kl (...,) in nats: float64 for float64 inputs, else float32.
        Under autocast half inputs are computed, and z returned, in float32.

    Raises:
        TypeError, ValueError: a dtype, device, shape or number that does not fit.
    """
    usual = _usual(mean, log_var, prior_mean, prior_log_var)
    if not usual:
        mean, log_var, prior_mean, prior_log_var = _check.upcast(mean, log_var, prior_mean, prior_log_var)  # type: ignore[assignment]
        _validate(mean, log_var, prior_mean, prior_log_var)
    _validate_draw(mean, samples, seed)
    if not free_bits >= 0:
        raise ValueError(f"free_bits: expected at least 0, found {free_bits}")
    seed = draw_seed(mean.device) if seed is None else seed
    if not usual and _by_reference("gaussian_rsample_kl", mean, log_var, prior_mean, prior_log_var):
        return reference.gaussian_rsample_kl(
            mean, log_var, prior_mean, prior_log_var, samples=samples, free_bits=free_bits, seed=seed
        )
    rows = (_rows(t, mean) for t in (mean, log_var, prior_mean, prior_log_var))
    z, kl = apply(_GaussianRsampleKl, *rows, seed, samples, float(free_bits))
    if mean.dim() == 2:
        return z, kl
    return z.view(mean.shape if samples is None else (samples, *mean.shape)), kl.view(mean.shape[:-1])


def gaussian_rsample_log_ratio(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_var: Tensor | None = None,
    *,
    samples: int,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z as `gaussian_rsample_kl` draws it, and log q(z) - log p(z) of each: q = N(mean, e^log_var), p the prior.

    What the importance weights of Burda et al. 2016, "Importance Weighted Autoencoders", are made of. Arguments and errors as
    there.

    Returns:
        z (samples, ..., D) of mean's dtype, and the log-ratio (samples, ...) in nats: float64 for float64 inputs, else float32.
    """
    usual = _usual(mean, log_var, prior_mean, prior_log_var)
    if not usual:
        mean, log_var, prior_mean, prior_log_var = _check.upcast(mean, log_var, prior_mean, prior_log_var)  # type: ignore[assignment]
        _validate(mean, log_var, prior_mean, prior_log_var)
    _validate_draw(mean, samples, seed)
    seed = draw_seed(mean.device) if seed is None else seed
    if (
        not usual
        and backends.choose("gaussian_rsample_log_ratio", mean, log_var, prior_mean, prior_log_var).backend == "reference"
    ):
        return reference.gaussian_rsample_log_ratio(mean, log_var, prior_mean, prior_log_var, samples=samples, seed=seed)
    rows = (_rows(t, mean) for t in (mean, log_var, prior_mean, prior_log_var))
    z, ratio = apply(_GaussianRsampleLogRatio, *rows, seed, samples)
    return (z, ratio) if mean.dim() == 2 else (z.view(samples, *mean.shape), ratio.view(samples, *mean.shape[:-1]))


def _rows(t: Tensor | None, mean: Tensor) -> Tensor | None:
    """t at mean's shape, as a matrix: outside the Function, so that autograd sums the gradient of what was broadcast."""
    if t is None:
        return None
    t = t if t.shape == mean.shape else t.expand(mean.shape)
    return t if t.dim() == 2 else t.reshape(-1, t.shape[-1])


def _usual(mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None) -> bool:
    """Whether the C++ kernels take all of them as they stand."""
    if prior_mean is None and prior_log_var is None:
        return backends.alike(mean, log_var)
    return backends.alike(mean, log_var, prior_mean, prior_log_var)  # type: ignore[arg-type]


def _by_reference(name: str, *gaussians: Tensor | None) -> bool:
    return backends.choose(name, *gaussians).backend == "reference"


def _validate(mean: Tensor, log_var: Tensor, prior_mean: Tensor | None, prior_log_var: Tensor | None) -> None:
    _check.floating(mean, "mean")
    _check.features(mean, "mean")
    for t, name in ((log_var, "log_var"), (prior_mean, "prior_mean"), (prior_log_var, "prior_log_var")):
        if t is not None or name == "log_var":
            _check.like(t, name, mean, "mean")  # type: ignore[arg-type]
            _check.broadcastable(t, name, mean, "mean")  # type: ignore[arg-type]
    if (prior_mean is None) != (prior_log_var is None):
        found = "prior_log_var" if prior_mean is None else "prior_mean"
        raise ValueError(f"prior_mean, prior_log_var: expected both or neither, found {found} alone")


def _validate_draw(mean: Tensor, samples: int | None, seed: Tensor | None) -> None:
    if samples is not None and samples < 1:
        raise ValueError(f"samples: expected at least 1, found {samples}")
    if seed is not None:
        _check_seed(seed, mean)


def _check_seed(seed: Tensor, mean: Tensor) -> None:
    if not isinstance(seed, Tensor) or seed.dtype != torch.int64:
        raise TypeError(f"seed: expected an int64 tensor, found {getattr(seed, 'dtype', type(seed).__name__)}")
    if seed.device != mean.device:
        raise ValueError(f"seed: expected mean's device {mean.device}, found {seed.device}")
    if seed.numel() != 1:
        raise ValueError(f"seed: expected one number, found shape {tuple(seed.shape)}")
