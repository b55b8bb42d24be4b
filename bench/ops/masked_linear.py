"""masked_linear against the dense layer and against F.linear(x, W * M, b).

Work: 2 B nnz(M) floating-point operations forward, twice that for the gradients of x and W. Bytes forward: x, the allowed
entries of W, b and y once each; backward reads x, W and the incoming gradient and writes the gradients of x, W (all of
it: zeros outside the mask) and b.
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

from ..case import OURS, Case, MemoryCase, Setting, Work, both_modes, leaves, relative_error
from ..plain import mask_of

OPERATION = "masked_linear"
FEATURES = {512: 64, 1024: 256, 2048: 512}  # of the MADE, by its hidden width


def cases(setting: Setting) -> Iterator[Case | MemoryCase]:
    if setting.device == "cuda":
        for hidden in (1024,) if setting.quick else (1024, 4096):
            _, layer, _ = made_layers(hidden // 4, hidden)
            for dtype in (torch.float32, torch.bfloat16):
                yield from comparison(layer, 4096, "cuda", dtype)
        return
    squares = {512: FEATURES[512]} if setting.quick else FEATURES
    batches = (256,) if setting.quick else (256, 1024)
    if backends.cpu_variant() == "avx2":
        yield from _square(squares, batches, {"forward": {"dense": 1.6}, "forward+backward": {"dense": 1.6}})
        return
    yield from _square(squares, batches, {"forward": {"dense": 1.7, "W * M": 1.85}, "forward+backward": {"dense": 1.7}})
    first, _, last = made_layers(FEATURES[512], 512)
    for layer in (first, last):
        yield from comparison(layer, 256, targets={"forward+backward": {"dense": 1.4}})
        yield from kernels_alone(layer, 256, 1.4)
    if backends.cpu_variant() == "avx512":
        # fastgen's AVX2 kernels against a dense layer that keeps its AVX-512.
        yield from (replace(case, variant="avx2") for case in _square(squares, (256,), {}))
    yield memory(1024, 256)


def made_layers(features: int, hidden: int) -> tuple[ops.MaskedLayer, ...]:
    """The first, the hidden and the last layer of a MADE."""
    return MADE(features, hidden_features=(hidden, hidden)).network.layers


def _square(squares: Mapping[int, int], batches: tuple[int, ...], targets: Mapping[str, Mapping[str, float]]) -> Iterator[Case]:
    for hidden, features in squares.items():
        _, layer, _ = made_layers(features, hidden)
        for batch in batches:
            yield from comparison(layer, batch, targets=targets)
            if targets:
                yield from kernels_alone(layer, batch, targets["forward+backward"]["dense"])


def comparison(
    layer: ops.MaskedLayer,
    batch: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    targets: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[Case]:
    in_degrees, out_degrees = torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees)
    fan_in, fan_out = len(in_degrees), len(out_degrees)
    x, weight, bias = (
        torch.randn(size, device=device, dtype=dtype) for size in ((batch, fan_in), (fan_out, fan_in), (fan_out,))
    )
    mask = mask_of(layer).to(x)
    plan = ops.make_plan(in_degrees, out_degrees, strict=layer.strict, device=device)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ops.masked_linear(x, weight, bias, in_degrees, out_degrees, strict=layer.strict, plan=plan)

    def masked(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight * mask, bias)

    inputs = leaves(x, weight / fan_in**0.5, bias)
    candidates: dict[str, Callable[..., Tensor]] = {OURS: ours, "dense": F.linear, "W * M": masked}
    shape = f"{batch} x {fan_in} -> {fan_out}"
    yield from both_modes(OPERATION, shape, candidates, masked, inputs, work(layer, batch, dtype), targets)


def kernels_alone(layer: ops.MaskedLayer, batch: int, target: float) -> Iterator[Case]:
    """Forward and backward of the CPU kernels on both sides, into buffers that are there: no allocator, no autograd."""
    in_degrees, out_degrees = torch.tensor(layer.in_degrees), torch.tensor(layer.out_degrees)
    fan_in, fan_out = len(in_degrees), len(out_degrees)
    x, weight, bias = torch.randn(batch, fan_in), torch.randn(fan_out, fan_in) / fan_in**0.5, torch.randn(fan_out)
    grad, mask = torch.randn(batch, fan_out), mask_of(layer)
    plan = ops.make_plan(in_degrees, out_degrees, strict=layer.strict)
    y, gx, gw, gb = (torch.empty_like(t) for t in (grad, x, weight, bias))
    compiled = backends.compiled()

    def ours() -> tuple[Tensor, ...]:
        compiled.masked_linear_forward(x, weight, bias, *plan, "identity", y)
        compiled.masked_linear_backward(grad, x, weight, y, *plan, "identity", gx, gw, gb)
        return y, gx, gw, gb

    def dense() -> None:
        torch.addmm(bias, x, weight.t(), out=y)
        torch.mm(grad, weight, out=gx)
        torch.mm(grad.t(), x, out=gw)
        torch.sum(grad, 0, out=gb)

    def error() -> float:
        d = [t.double() for t in (x, weight * mask, grad)]
        expected = (d[0] @ d[1].t() + bias.double(), d[2] @ d[1], d[2].t() @ d[0] * mask, d[2].sum(0))
        return relative_error(ours(), expected)

    forward, backward = work(layer, batch, torch.float32)
    shape, candidates = f"{batch} x {fan_in} -> {fan_out}", {OURS: ours, "dense": dense}
    yield Case(OPERATION, "kernels alone", shape, candidates, error, forward + backward, {"dense": target})


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
        _, forward_backward = comparison(layer, batch)
        return forward_backward.candidates[name]

    call(4, 16, 8)()
    return call(FEATURES[hidden], hidden, batch)
