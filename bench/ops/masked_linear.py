"""masked_linear against the dense layer and against F.linear(x, W * M, b).

Work: 2 B nnz(M) floating-point operations forward, twice that for the gradients of x and W. Bytes forward: x, the allowed
entries of W, b and y once each; backward reads x, W and the incoming gradient and writes the gradients of x, W (all of
it: zeros outside the mask) and b. W is zero outside the mask, so that the dense layer computes the same; its gradient of W is
compared inside the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgen import backends, ops
from fastgen.nn import MADE

from ..case import OURS, Case, MemoryCase, Setting, Work, leaves, passes, relative_error
from ..plain import mask_of
from ..precision import TF32
from ..providers import compiled

OPERATION = "masked_linear"
# By the width of a square layer, of 4096 rows on an H200.
CUDA_TARGETS = {2048: {"dense": 1.2}, 4096: {"dense": 1.6}, 8192: {"dense": 1.6}}
FEATURES = {512: 64, 1024: 256, 2048: 512}  # of the MADE, by its hidden width


def cases(setting: Setting) -> Iterator[Case | MemoryCase]:
    if setting.device == "cuda":
        for hidden in (1024,) if setting.quick else (1024, *CUDA_TARGETS):
            _, layer, _ = made_layers(hidden // 4, hidden)
            # What is asked of tensor cores.
            wanted = CUDA_TARGETS.get(hidden, {}) if setting.dtype in ("bfloat16", TF32) else {}
            yield from comparison(layer, 4096, setting, {"forward": wanted, "forward+backward": wanted})
        return
    squares = {512: FEATURES[512]} if setting.quick else FEATURES
    batches = (256,) if setting.quick else (256, 1024)
    if backends.cpu_variant() == "avx2":
        yield from _square(squares, batches, setting, {"forward": {"dense": 1.6}, "forward+backward": {"dense": 1.6}})
        return
    targets = {"forward": {"dense": 1.7, "W * M": 1.85}, "forward+backward": {"dense": 1.7}}
    yield from _square(squares, batches, setting, targets)
    first, _, last = made_layers(FEATURES[512], 512)
    for layer in (first, last):
        yield from comparison(layer, 256, setting, {"forward+backward": {"dense": 1.4}})
        if setting.dtype == "float32":
            yield from kernels_alone(layer, 256, 1.4)
    if backends.cpu_variant() == "avx512":
        # fastgen's AVX2 kernels against a dense layer that keeps its AVX-512.
        yield from (replace(case, variant="avx2") for case in _square(squares, (256,), setting, {}))
    if setting.counts_memory:
        yield memory(1024, 256)


def made_layers(features: int, hidden: int) -> tuple[ops.MaskedLayer, ...]:
    """The first, the hidden and the last layer of a MADE."""
    return MADE(features, hidden_features=(hidden, hidden)).network.layers


def _square(
    squares: Mapping[int, int], batches: tuple[int, ...], setting: Setting, targets: Mapping[str, Mapping[str, float]]
) -> Iterator[Case]:
    for hidden, features in squares.items():
        _, layer, _ = made_layers(features, hidden)
        for batch in batches:
            yield from comparison(layer, batch, setting, targets)
            if targets and setting.dtype == "float32":
                yield from kernels_alone(layer, batch, targets["forward+backward"]["dense"])


def comparison(
    layer: ops.MaskedLayer, batch: int, setting: Setting, targets: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[Case]:
    in_degrees, out_degrees = torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees)
    fan_in, fan_out = len(in_degrees), len(out_degrees)
    sizes = (batch, fan_in), (fan_out, fan_in), (fan_out,)
    x, weight, bias = (torch.randn(size, device=setting.device) for size in sizes)
    mask = mask_of(layer).to(x)
    plan = ops.make_plan(in_degrees, out_degrees, strict=layer.strict, device=setting.device)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.masked_linear(x, weight, bias, in_degrees, out_degrees, strict=layer.strict, plan=plan)

    def masked(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight * mask, bias)

    inputs = leaves(x, weight * mask / fan_in**0.5, bias)
    candidates: dict[str, Callable[..., Tensor]] = {
        OURS: ours,
        "dense": F.linear,
        "W * M": masked,
        **compiled(masked, setting),
    }
    compared = {"dense": lambda results: [*results[:2], results[2] * mask, results[3]]}
    shape, least = f"{batch} x {fan_in} -> {fan_out}", work(layer, batch, x.dtype)
    yield from passes(OPERATION, shape, candidates, masked, inputs, least, targets, compared=compared)


def kernels_alone(layer: ops.MaskedLayer, batch: int, target: float) -> Iterator[Case]:
    """Forward and backward of the CPU kernels on both sides, into buffers that are there: no allocator, no autograd."""
    in_degrees, out_degrees = torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees)
    fan_in, fan_out = len(in_degrees), len(out_degrees)
    mask = mask_of(layer)
    x, weight, bias = torch.randn(batch, fan_in), torch.randn(fan_out, fan_in) * mask / fan_in**0.5, torch.randn(fan_out)
    grad = torch.randn(batch, fan_out)
    plan = ops.make_plan(in_degrees, out_degrees, strict=layer.strict)
    y, gx, gw, gb = (torch.empty_like(t) for t in (grad, x, weight, bias))
    compiled = backends.compiled()

    def ours() -> tuple[Tensor, ...]:
        compiled.masked_linear_forward(x, weight, bias, *plan, "identity", y)
        compiled.masked_linear_backward(grad, x, weight, y, *plan, "identity", gx, gw, gb)
        return y, gx, gw, gb

    def dense() -> tuple[Tensor, ...]:
        torch.addmm(bias, x, weight.t(), out=y)
        torch.mm(grad, weight, out=gx)
        torch.mm(grad.t(), x, out=gw)
        torch.sum(grad, 0, out=gb)
        return y, gx, gw, gb

    def error(run: Callable[[], tuple[Tensor, ...]]) -> float:
        d = [t.double() for t in (x, weight, grad)]
        expected = (d[0] @ d[1].t() + bias.double(), d[2] @ d[1], d[2].t() @ d[0] * mask, d[2].sum(0))
        found = run()
        return relative_error([*found[:2], found[2] * mask, found[3]], expected)

    forward, backward = work(layer, batch, x.dtype)
    shape, candidates = f"{batch} x {fan_in} -> {fan_out}", {OURS: ours, "dense": dense}
    errors = {name: partial(error, run) for name, run in candidates.items()}
    yield Case(OPERATION, "kernels alone", shape, candidates, errors, forward + backward, {"dense": target})


def work(layer: ops.MaskedLayer, batch: int, dtype: torch.dtype) -> tuple[Work, Work]:
    """Of the forward and of the backward pass."""
    fan_in, fan_out = len(layer.in_degrees), len(layer.out_degrees)
    allowed = int(mask_of(layer).sum())
    forward = batch * (fan_in + fan_out) + allowed + fan_out
    backward = batch * (2 * fan_in + fan_out) + allowed + fan_in * fan_out + fan_out
    return Work(2 * batch * allowed, dtype.itemsize * forward), Work(4 * batch * allowed, dtype.itemsize * backward)


def memory(hidden: int, batch: int) -> MemoryCase:
    """What forward and backward hold beyond output and gradients: at most one batch of inputs and outputs, never out x in."""
    return MemoryCase(
        OPERATION,
        "forward+backward",
        f"{batch} x {hidden} -> {hidden}",
        {name: partial(_memory_call, name, hidden, batch) for name in (OURS, "W * M")},
        4 * (batch * 2 * hidden + hidden * hidden + hidden),
        {"batch x (in + out)": 4 * batch * 2 * hidden},
    )


def _memory_call(name: str, hidden: int, batch: int) -> Callable[[], object]:
    def call(features: int, hidden: int, batch: int) -> Callable[[], object]:
        _, layer, _ = made_layers(features, hidden)
        *_, forward_backward = comparison(layer, batch, Setting(quick=True))
        return forward_backward.candidates[name]

    call(4, 16, 8)()
    return call(FEATURES[hidden], hidden, batch)
