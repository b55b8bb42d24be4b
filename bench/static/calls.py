"""The calls whose kernels are compiled: every operation, forward and backward, at the sizes it is made for.

A new kernel is one more line in `CALLS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fastgen.kernels import (
    affine_autoregressive,
    coupling,
    gaussian_log_prob,
    gaussian_mixture_log_prob,
    gaussian_rsample_kl,
    likelihoods,
    masked_autoregressive,
    masked_linear,
    planar,
    radial,
)
from fastgen.kernels._launch import Device, accumulator
from fastgen.ops import make_plan

from .budget import DTYPES
from .launches import Launch, launches

Thunk = Callable[[], None]


@dataclass(frozen=True)
class Call:
    """An operation in one form.

    make: from a dtype, the call forward and backward, on CPU tensors.
    dtypes: what it computes in, keys of `DTYPES`.
    """

    name: str
    make: Callable[[torch.dtype], Thunk]
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float64")

    def kernels(self, dtype: str, device: Device) -> dict[str, Launch]:
        """What it launches on `device`, by names that are its own."""
        with _tf32(dtype == "tf32"):
            found = launches(self.make(DTYPES[dtype]), device)
        seen: Counter[str] = Counter()
        named = {}
        for launch in found:
            seen[launch.name] += 1
            number = f" {seen[launch.name]}" if seen[launch.name] > 1 else ""
            named[f"{self.name}: {launch.name}{number}"] = launch
        return named


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def linear(dtype: torch.dtype, batch: int, inputs: int, outputs: int, needs: tuple[bool, ...] = (True,) * 3) -> Thunk:
    """A masked layer, its degrees sorted as in nn.MADE."""
    x, y = torch.zeros(batch, inputs, dtype=dtype), torch.zeros(batch, outputs, dtype=dtype)
    weight, bias = torch.zeros(outputs, inputs, dtype=dtype), torch.zeros(outputs, dtype=dtype)
    plan = make_plan(torch.arange(inputs), torch.arange(outputs) * inputs // outputs)

    def call() -> None:
        masked_linear.forward(x, weight, bias, plan, "relu")
        masked_linear.backward(y, x, weight, y, plan, "relu", needs)

    return call


def _row_inputs(dtype: torch.dtype, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, the two columns of a network's output, and one value per row."""
    shift, log_scale = torch.zeros(batch, 64, 2, dtype=dtype).unbind(-1)
    return torch.zeros(batch, 64, dtype=dtype), shift, log_scale, torch.zeros(batch, dtype=accumulator(dtype))


def affine(dtype: torch.dtype, batch: int = 4096) -> Thunk:
    x, shift, log_scale, per_row = _row_inputs(dtype, batch)

    def call() -> None:
        affine_autoregressive.forward(x, shift, log_scale, per_row, False, 3, 6.9, 0.0)
        affine_autoregressive.backward(x, per_row, x, shift, log_scale, False, 3, 6.9, 0.0, (True,) * 3)

    return call


def gaussian(dtype: torch.dtype, batch: int = 4096) -> Thunk:
    x, mean, log_scale, per_row = _row_inputs(dtype, batch)

    def call() -> None:
        gaussian_log_prob.forward(x, mean, log_scale, 3, 6.9, 0.0)
        gaussian_log_prob.backward(per_row, x, mean, log_scale, 3, 6.9, 0.0, (True,) * 3)

    return call


def couple(
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    *,
    channels_last: bool = False,
    checkerboard: bool = False,
    compact: bool = False,
    additive: bool = False,
    device: str = "cpu",
) -> Thunk:
    """A coupling layer forward, and backward where that reads most, from the inverse."""
    batch, channels, sites = shape

    def zeros(channels: int) -> Tensor:
        t = torch.zeros(batch, channels, sites, dtype=dtype, device=device)
        return t.transpose(1, 2).contiguous().transpose(1, 2) if channels_last else t

    x, shift = zeros(channels), zeros(channels // 2 if compact else channels)
    log_scale = None if additive else shift.clone()
    per_row = torch.zeros(batch, dtype=accumulator(dtype), device=device)
    places = None if checkerboard else torch.full((channels,), -1, dtype=torch.int32, device=device)
    pattern = (math.isqrt(sites), 1) if checkerboard else None

    def call() -> None:
        coupling.forward(x, shift, log_scale, per_row, places, pattern, False, 3, 6.9, 0.0)
        coupling.backward(x, per_row, x, shift, log_scale, places, pattern, True, 3, 6.9, 0.0, (True,) * 3)

    return call


def _samples(dtype: torch.dtype) -> Thunk:
    """Samples with their divergence and with their log-ratio, of a learned prior."""
    mean, log_var, prior_mean, prior_log_var = (torch.zeros(4096, 64, dtype=dtype) for _ in range(4))
    seed, needs = torch.zeros((), dtype=torch.int64), (True,) * 4
    z, sums = torch.zeros(1, 4096, 64, dtype=dtype), torch.zeros(1, 4096, dtype=accumulator(dtype))
    given = mean, log_var, prior_mean, prior_log_var, 1

    def call() -> None:
        gaussian_rsample_kl.kl_forward(*given, 0.1, seed)
        gaussian_rsample_kl.kl_backward(z, sums[0], *given, 0.1, seed, needs)
        gaussian_rsample_kl.log_ratio_forward(*given, seed)
        gaussian_rsample_kl.log_ratio_backward(z, sums, *given, seed, needs)

    return call


def _likelihoods(dtype: torch.dtype) -> Thunk:
    x, logits, per_row = (torch.zeros(4096, 64, dtype=d) for d in (dtype, dtype, accumulator(dtype)))
    categories = torch.zeros(4096, dtype=torch.int64)

    def call() -> None:
        likelihoods.bernoulli_forward(x, logits)
        likelihoods.bernoulli_backward(per_row[:, 0], x, logits, (True, True))
        likelihoods.discretized_logistic_forward(x, logits, logits, 256)
        likelihoods.discretized_logistic_backward(per_row[:, 0], x, logits, logits, 256, (True,) * 3)
        likelihoods.categorical_forward(categories, logits)
        likelihoods.categorical_backward(per_row[:, 0], categories, logits, 1)

    return call


def _mixture(dtype: torch.dtype) -> Thunk:
    x, means, weights = (torch.zeros(size, dtype=dtype) for size in ((4096, 64), (256, 64), (256,)))
    per_row = torch.zeros(4096, dtype=accumulator(dtype))

    def call() -> None:
        gaussian_mixture_log_prob.forward(x, weights, means, means)
        gaussian_mixture_log_prob.backward(per_row, per_row, per_row, x, weights, means, means, (True,) * 4)

    return call


@dataclass(frozen=True)
class Layers:
    """Sixteen planar or radial layers at 64 features, of all rows or of each."""

    shared: bool
    inverse: bool
    batch: int = 8192

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lead = () if self.shared else (self.batch,)
        return (
            torch.zeros(self.batch, 64, dtype=dtype),
            torch.zeros(*lead, 16, 64, dtype=dtype),
            torch.zeros(*lead, 16, dtype=dtype),
            torch.zeros(self.batch, dtype=accumulator(dtype)),
        )


def planar_layers(dtype: torch.dtype, layers: Layers) -> Thunk:
    z, vectors, numbers, per_row = layers.inputs(dtype)
    saved = torch.zeros(16, layers.batch, dtype=accumulator(dtype))

    def call() -> None:
        planar.forward(z, vectors, vectors, numbers, True, layers.inverse, True)
        planar.backward(z, per_row, z, vectors, vectors, numbers, saved, True, layers.inverse, (True,) * 4)

    return call


def radial_layers(dtype: torch.dtype, layers: Layers) -> Thunk:
    z, vectors, numbers, per_row = layers.inputs(dtype)

    def call() -> None:
        radial.forward(z, vectors, numbers, numbers, layers.inverse)
        radial.backward(z, per_row, z, vectors, numbers, numbers, layers.inverse, (True,) * 4)

    return call


def block(
    dtype: torch.dtype, batch: int = 4096, features: int = 64, hidden: int = 512, needs: tuple[bool, bool] = (True, True)
) -> Thunk:
    """A block of a masked autoregressive flow of one hidden layer, forward and backward to x and to parameters."""
    degrees = torch.arange(features)
    units, outputs = torch.arange(hidden) * features // hidden, degrees.repeat_interleave(2)
    plan = [*make_plan(degrees, units), *make_plan(units, outputs, strict=True)]
    x, per_row = torch.zeros(batch, features, dtype=dtype), torch.zeros(batch, dtype=accumulator(dtype))
    shapes = (hidden, features), (hidden,), (2 * features, hidden), (2 * features,)
    params = [torch.zeros(shape, dtype=dtype) for shape in shapes]
    saved = torch.zeros(batch * (hidden + 2 * features), dtype=dtype)
    given = plan, ["relu", "identity"], [-1, -1], False, False, 3, 6.9, 0.0
    every = needs[0], False, *needs[1:] * 4

    def call() -> None:
        masked_autoregressive.forward(x, params, None, per_row, *given, True, False)
        masked_autoregressive.backward(x, per_row, x, params, saved, *given, every, False)

    return call


CALLS = (
    # Large enough for the largest tiles of each kind; the first layer of a small MADE for the smallest.
    Call("masked_linear", partial(linear, batch=8192, inputs=2048, outputs=2048), tuple(DTYPES)),
    Call("masked_linear, small", partial(linear, batch=256, inputs=64, outputs=512), tuple(DTYPES)),
    Call("masked_autoregressive", block),
    Call("affine_autoregressive", affine),
    Call("gaussian_log_prob", gaussian),
    Call("coupling of vectors", partial(couple, shape=(4096, 128, 1))),
    Call("coupling of vectors, additive", partial(couple, shape=(4096, 128, 1), additive=True)),
    Call("coupling of channels", partial(couple, shape=(16, 12, 28 * 28), compact=True)),
    Call("coupling of channels, last", partial(couple, shape=(64, 32, 14 * 14), channels_last=True)),
    Call("coupling of a checkerboard", partial(couple, shape=(16, 3, 256 * 256), checkerboard=True)),
    Call("gaussian_rsample_kl", _samples),
    Call("likelihoods", _likelihoods),
    Call("gaussian_mixture_log_prob", _mixture),
    *(
        Call(f"{name}{', inverse' * inverse}{'' if shared else ', of each row'}", partial(make, layers=Layers(shared, inverse)))
        for name, make in (("planar", planar_layers), ("radial", radial_layers))
        for inverse in (False, True)
        for shared in (True, False)
    ),
)
