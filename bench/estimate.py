"""Memory and time of a training step under data parallelism, for models of any size on machines that are not at hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from . import ceilings
from .case import OURS, Work
from .roofline import COPY, GEMM
from .rows import Row
from .step_count import ADAM_STATE, StepCount

# What step_count counts in.
_COUNTED = torch.float32.itemsize
# Bytes of the copies that stand for the caches and for memory, where ceilings are measured.
COPIES = (1 << 16, 1 << 20, 1 << 24, 1 << 28)


class Device(NamedTuple):
    """What each process of a step runs on.

    rate: FLOP/s of matrix products. bandwidths: bytes/s of copies, by the bytes that one moves.
    share: of the roof that those two are, what a step reaches.
    """

    rate: float
    bandwidths: Mapping[int, float]
    share: float = 1.0

    def bandwidth(self, nbytes: float) -> float:
        nearest = min(self.bandwidths, key=lambda size: abs(math.log(size / max(nbytes, 1))))
        return self.bandwidths[nearest]

    def seconds(self, works: Iterable[Work]) -> float:
        """One operation after the other, each limited by its arithmetic or by its bytes."""
        roofs = (max(work.flops / self.rate, work.bytes / self.bandwidth(work.bytes)) for work in works)
        return sum(roofs) / self.share


class Estimate(NamedTuple):
    """Of one step, in bytes and seconds, for one of `gpus` equal processes.

    gradients: a second time in `buckets`, which DistributedDataParallel sends them in.
    peak: all of it at the worst moment; saved tensors go as gradients come.
    all_reduce: of the gradients around a ring of links, as if nothing hid it.
    """

    parameters: float
    gradients: float
    buckets: float
    optimizer: float
    rows: float
    saved: float
    workspace: float
    peak: float
    forward: float
    backward: float
    update: float
    all_reduce: float

    @property
    def compute(self) -> float:
        return self.forward + self.backward + self.update

    @property
    def step(self) -> tuple[float, float]:
        """With the all-reduce behind the backward pass as far as there is room, and with none of it hidden."""
        return self.forward + max(self.backward, self.all_reduce) + self.update, self.compute + self.all_reduce


def estimate(
    count: StepCount, batch: int, features: int, device: Device, *, gpus: int = 1, link: float = math.inf, itemsize: int = 4
) -> Estimate:
    """From a count of a step on `batch` rows, those of one GPU.

    link: bytes/s between neighbours of the ring, each way. itemsize: bytes of all numbers, in place of the 4 of the count.
    """
    scale = itemsize / _COUNTED
    parameters, rows = scale * count.parameters, itemsize * batch * features
    buckets = parameters if gpus > 1 else 0.0
    optimizer = ADAM_STATE * parameters
    forward, backward, update = (
        device.seconds(_scaled(works, scale)) for works in (count.forward, count.backward, [count.optimizer])
    )
    return Estimate(
        parameters,
        parameters,
        buckets,
        optimizer,
        rows,
        scale * count.saved,
        scale * count.workspace,
        parameters + buckets + optimizer + rows + scale * count.peak,
        forward,
        backward,
        update,
        2 * (gpus - 1) / gpus * parameters / link,
    )


def _scaled(works: Sequence[Work], scale: float) -> list[Work]:
    return [Work(work.flops, scale * work.bytes) for work in works]


def measured_ceilings(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The ceilings of this machine, as a run of benchmarks keeps them."""
    name = str(dtype).removeprefix("torch.")
    copies = {str(size): ceilings.copy_bandwidth(device, size) for size in COPIES}
    return {GEMM: {name: ceilings.gemm_rate(device, dtype)}, COPY: copies}


def device_of(found: Mapping[str, Any], dtype: str, share: float = 1.0) -> Device:
    """The device with the ceilings of a run. Raises ValueError where it has none of that precision."""
    rates, copies = found.get(GEMM) or {}, found.get(COPY) or {}
    if dtype not in rates or not copies:
        raise ValueError(f"expected ceilings of {dtype}, found {', '.join(rates) or 'none'}")
    return Device(rates[dtype], {int(size): rate for size, rate in copies.items()}, share)


def measured_share(rows: Iterable[Row], model: str, roof: float) -> tuple[float, Row]:
    """What share of its roof the step of a model reached, and the row that says so: the one whose roof is nearest.

    roof: of the step that is to be estimated, in ms. Steps of the same model where there are any, else of all. Raises
    ValueError without any.
    """
    steps = [r for r in rows if r.candidate == OURS and r.mode.startswith("step") and r.share and r.roof]
    if not steps:
        raise ValueError("expected rows of training steps with their share of the roof, found none")
    own = [row for row in steps if row.operation == model] or steps
    nearest = min(own, key=lambda row: abs(math.log((row.roof or roof) / roof)))
    assert nearest.share is not None
    return nearest.share, nearest
