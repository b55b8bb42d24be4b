"""affine_coupling and additive_coupling against what users write in PyTorch: split, exp, multiply, add, concatenate, sum.

Bytes forward: x read, shift and log_scale of the transformed half read, y and one log_det per row written. Backward reads
those and both incoming gradients and writes three gradients. There is no matrix product. shift and log_scale are the halves of
a network's output, views of it. The additive layer has no log_scale and no log_det.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastgen import backends, ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes, relative_error
from ..precision import word
from ..providers import compiled

OPERATION = "affine_coupling"
Coupling = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

# Batch and features; by mode, how many times faster than PyTorch, and than the same compiled.
TARGETS: dict[tuple[int, int], dict[str, dict[str, float]]] = {
    (256, 64): {},
    (8192, 128): {},
    (32768, 128): {
        "forward": {"PyTorch": 8.0, "compiled": 2.0},
        "forward+backward": {"PyTorch": 5.0, "compiled": 1.5},
    },
    (131072, 128): {"forward": {"PyTorch": 2.0}},
}
IMAGES = (64, 12, 32, 32)


def cases(setting: Setting) -> Iterator[Case]:
    for vectors, targets in list(TARGETS.items())[: 1 if setting.quick else None]:
        yield from _vectors(vectors, setting, targets)
        yield from _additive(vectors, setting)
        if setting.device == "cpu" and setting.dtype == "float32":
            yield _kernel_alone(vectors)
    shape = (4, *IMAGES[1:]) if setting.quick else IMAGES
    channels = torch.arange(shape[1]) >= shape[1] // 2
    yield from _masked(shape, "halves of channels", channels, setting.device)
    yield from _masked(shape, "checkerboard", ops.Checkerboard(0), setting.device)
    yield from _masked(shape[:2], "every other feature", torch.arange(shape[1]) % 2 == 0, setting.device)


def _vectors(shape: tuple[int, int], setting: Setting, targets: Mapping[str, Mapping[str, float]]) -> Iterator[Case]:
    batch, features = shape
    inputs = _inputs(shape, features // 2, setting.device)
    mask = torch.arange(features) >= features // 2
    ours = partial(ops.affine_coupling, mask=mask, plan=ops.make_coupling_plan(mask, setting.device))
    candidates: dict[str, Coupling] = {OURS: ours, "PyTorch": _halves, **compiled(_halves, setting)}
    yield from passes(OPERATION, f"{batch} x {features}", candidates, _halves, inputs, _work(batch, features), targets)


def _halves(x: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    kept, transformed = x.chunk(2, -1)
    return torch.cat((kept, transformed * log_scale.exp() + shift), -1), log_scale.sum(-1)


def _additive(shape: tuple[int, int], setting: Setting) -> Iterator[Case]:
    batch, features = shape
    x, shift, _ = _inputs(shape, features // 2, setting.device)
    mask = torch.arange(features) >= features // 2
    plan = ops.make_coupling_plan(mask, setting.device)

    def ours(x: Tensor, shift: Tensor) -> Tensor:
        return ops.additive_coupling(x, shift, mask=mask, plan=plan)[0]

    candidates = {OURS: ours, "PyTorch": _added, **compiled(_added, setting)}
    moved = word() * batch * features
    work = Work(0, 2.5 * moved), Work(0, 2.5 * moved)
    yield from passes("additive_coupling", f"{batch} x {features}", candidates, _added, [x, shift], work)


def _added(x: Tensor, shift: Tensor) -> Tensor:
    kept, transformed = x.chunk(2, -1)
    return torch.cat((kept, transformed + shift), -1)


def _kernel_alone(shape: tuple[int, int]) -> Case:
    """The kernel into given outputs, against a copy of as many bytes as it has to read and write."""
    batch, features = shape
    x, shift, log_scale = (t.detach() for t in _inputs(shape, features // 2, "cpu"))
    plan = ops.make_coupling_plan(torch.arange(features) >= features // 2)
    y, log_det = torch.empty_like(x), torch.empty(batch)
    forward, _ = _work(batch, features)
    source = torch.ones(int(forward.bytes) // 8)
    copy = torch.empty_like(source)

    def kernel() -> None:
        backends.compiled().coupling_forward(x, shift, log_scale, None, plan.places, 0, False, *ops.ScaleMap().code, y, log_det)

    def error() -> float:
        kernel()
        return relative_error((y, log_det), _halves(x.double(), shift.double(), log_scale.double()))

    candidates = {OURS: kernel, "copy of the bytes": lambda: copy.copy_(source)}
    errors = {OURS: error, "copy of the bytes": lambda: relative_error([copy.copy_(source)], [source])}
    targets = {"copy of the bytes": 1.0} if batch == 8192 else {}
    return Case(OPERATION, "kernel alone", f"{batch} x {features}", candidates, errors, forward, targets)


def _masked(shape: tuple[int, ...], name: str, mask: Tensor | ops.Checkerboard, device: str) -> Iterator[Case]:
    """Any mask, shift and log_scale of full width, against the definition."""
    if len(shape) == 2:
        shape = (shape[0] * IMAGES[2] * IMAGES[3], shape[1])
    options: dict[str, Any] = {"mask": mask.to(device) if isinstance(mask, Tensor) else mask, "event_dims": len(shape) - 1}
    plan = ops.make_coupling_plan(mask, device)
    candidates: dict[str, Coupling] = {
        OURS: partial(ops.affine_coupling, **options, plan=plan),
        "PyTorch": partial(reference.affine_coupling, **options),
    }
    label = f"{' x '.join(map(str, shape))}, {name}"
    work = _work(shape[0], torch.Size(shape[1:]).numel())
    yield from passes(OPERATION, label, candidates, candidates["PyTorch"], _inputs(shape, shape[1], device), work)


def _inputs(shape: tuple[int, ...], channels: int, device: str) -> list[Tensor]:
    params = torch.randn(shape[0], 2 * channels, *shape[2:], device=device)
    shift, log_scale = params.mul_(0.3).chunk(2, 1)
    return leaves(torch.randn(shape, device=device), shift, log_scale)


def _work(batch: int, features: int) -> tuple[Work, Work]:
    """With half of the features transformed."""
    return Work(0, word() * batch * (3 * features + 1)), Work(0, word() * batch * (5 * features + 1))
