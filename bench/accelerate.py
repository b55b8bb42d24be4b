"""Models of other libraries before and after `fastgen.accelerate`: training steps, samples and densities in the slow direction.

Each is built twice from one seed and accelerated once. Work: that of the networks' allowed weights, once forward and twice
backward; a step also reads weights, gradients and Adam's two moments and writes weights and moments.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fastgen
from fastgen.interop.registry import LIBRARIES

from . import coupling_flows, sampling
from .case import OURS, Case, Setting, Work, relative_error
from .models import Sizes, peers
from .steps import training_step, value_and_gradients

OPERATION = "accelerate"
MAF = Sizes(256, 64, 512)
STEP_TARGET, SLOW_TARGET, COUPLING_TARGET = 1.6, 50.0, 1.1
# As sbi builds its flows: features, context, hidden, transforms, rows of a batch, samples.
SBI = (5, 10, 50, 5, 50, 10_000)
SBI_STEP_TARGET, SBI_SAMPLE_TARGET = 1.5, 10.0
LAYERS, HALF_A_SECOND = 50, "half a second"


class Model(NamedTuple):
    """A flow of another library: what is accelerated of it, and how it is called."""

    module: Any
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], object] | None = None

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.module.parameters())


Build = Callable[[], Model]


def cases(setting: Setting) -> Iterator[Case]:
    device = setting.device
    for name, build in _fast_densities(device).items():
        yield _step(
            name, "MAF step, fused Adam", str(MAF), build, torch.randn(MAF.batch, MAF.features, device=device), STEP_TARGET
        )
        yield _sample(name, "MAF sample", str(MAF), build, MAF.batch, SLOW_TARGET)
        if setting.quick:
            return
    for name, build in _slow_densities(device).items():
        yield _slow(name, build, torch.randn(MAF.batch, MAF.features, device=device))
    for name, build in _couplings(device).items():
        x = torch.randn(coupling_flows.BATCH, coupling_flows.FEATURES, device=device)
        shape = coupling_flows.SHAPE
        yield _gradients(name, "RealNVP step without the optimiser", shape, build, x, COUPLING_TARGET)
    features, context, hidden, transforms, rows, samples = SBI
    shape = f"{rows} x {features}, context {context}, {transforms} x hidden {hidden} x 2"
    build = partial(_sbi, torch.randn(rows, context, device=device), device)
    yield _step(
        "nflows", "sbi's MAF, step, fused Adam", shape, build, torch.randn(rows, features, device=device), SBI_STEP_TARGET
    )
    yield _sample("nflows", "sbi's MAF, samples", f"{samples} x {shape.partition(' x ')[2]}", build, samples, SBI_SAMPLE_TARGET)
    yield _fifty(device)


def _pair(build: Build) -> tuple[Model, Model]:
    """The same model twice: accelerated, and as it was."""
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(build())
    fastgen.accelerate(found[0].module)
    return found[0], found[1]


def _step(name: str, mode: str, shape: str, build: Build, x: Tensor, target: float) -> Case:
    ours, theirs = _pair(build)
    calls = {who: training_step(model.module, model.log_prob, x, fused=True) for who, model in ((OURS, ours), (name, theirs))}
    forward = _work(theirs.module, len(x))
    moments = Work(0, 28 * sum(p.numel() for p in theirs.parameters))
    return _case(mode, name, shape, calls, _error(*_pair(build), x), forward + forward + forward + moments, target, x)


def _gradients(name: str, mode: str, shape: str, build: Build, x: Tensor, target: float) -> Case:
    ours, theirs = _pair(build)

    def run(model: Model) -> Callable[[], object]:
        return lambda: value_and_gradients(model.parameters, model.log_prob, x)

    work = _work(theirs.module, len(x))
    calls = {OURS: run(ours), name: run(theirs)}
    return _case(mode, name, shape, calls, _error(ours, theirs, x[:32]), work + work + work, target, x)


def _slow(name: str, build: Build, x: Tensor) -> Case:
    return _gradients(name, "IAF log_prob and gradients", str(MAF), build, x, SLOW_TARGET)


def _sample(name: str, mode: str, shape: str, build: Build, n: int, target: float) -> Case:
    ours, theirs = _pair(build)

    def error() -> float:
        found = []
        for model in (ours, theirs):
            torch.manual_seed(1)
            found.append(_draw(model, 8))
        return relative_error([found[0]], [found[1]])

    calls = {who: partial(_draw, model, n) for who, model in ((OURS, ours), (name, theirs))}
    return _case(mode, name, shape, calls, error, _work(theirs.module, n), target, theirs.parameters[0])


@torch.no_grad()
def _draw(model: Model, n: int) -> Tensor:
    assert model.sample is not None
    drawn = model.sample(n)
    return drawn[0] if isinstance(drawn, tuple) else drawn  # type: ignore[return-value]


def _fifty(device: str) -> Case:
    """A deep model accelerated and restored, beside the half second that it may take."""
    model = nn.ModuleList(
        copy.deepcopy(next(iter(_fast_densities(device).values()))().module) for _ in range(LAYERS // MAF.transforms)
    )

    def run() -> None:
        fastgen.restore(fastgen.accelerate(model))

    calls: dict[str, Callable[[], object]] = {OURS: run, HALF_A_SECOND: partial(time.sleep, 0.5)}
    shape = f"{LAYERS} layers of {MAF.features}, hidden {MAF.hidden} x 2"
    return _case("accelerate and restore", HALF_A_SECOND, shape, calls, lambda: 0.0, Work(0, 1), 1.0, next(model.parameters()))


def _case(
    mode: str,
    name: str,
    shape: str,
    calls: Mapping[str, Callable[[], object]],
    error: Callable[[], float],
    work: Work,
    target: float,
    like: Tensor,
) -> Case:
    # The library is part of the shape: rows of one mode and shape are one table entry.
    shape = shape if name == HALF_A_SECOND else f"{shape}, {name}"
    return Case(OPERATION, mode, shape, calls, error, work, {name: target}, device=like.device.type)


def _error(ours: Model, theirs: Model, x: Tensor) -> Callable[[], float]:
    """Of values and gradients against those of the untouched model."""

    def error() -> float:
        found, expected = (value_and_gradients(model.parameters, model.log_prob, x) for model in (ours, theirs))
        return relative_error(found, expected)

    return error


def _work(module: Any, rows: int) -> Work:
    """One pass of every network: the weights that masks allow, or all; parameters read."""
    layers = [
        layer for layer in module.modules() if isinstance(getattr(layer, "weight", None), Tensor) and layer.weight.dim() == 2
    ]
    allowed = sum(int(getattr(layer, "mask", torch.ones_like(layer.weight)).count_nonzero()) for layer in layers)
    return Work(2 * rows * allowed, 4 * sum(p.numel() for p in module.parameters()))


def _supported(builds: dict[str, Build]) -> dict[str, Build]:
    return {
        name: build
        for name, build in builds.items()
        if _package(name) in LIBRARIES and importlib.util.find_spec(_package(name))
    }


def _package(name: str) -> str:
    return {"Pyro": "pyro"}.get(name, name)


def _fast_densities(device: str) -> dict[str, Build]:
    """Flows whose samples are the slow direction."""

    def of_peers(name: str) -> Model:
        model, log_prob = peers(MAF, device)[name]
        return Model(model, log_prob, lambda n: sampling.sampler(name, model, n)())

    return _supported(
        {name: partial(of_peers, name) for name in ("nflows", "zuko")} | {"normflows": partial(_normflows, device)}
    )


def _normflows(device: str) -> Model:
    import normflows

    layers = [
        normflows.flows.Reverse(
            normflows.flows.MaskedAffineAutoregressive(MAF.features, MAF.hidden, num_blocks=1, use_residual_blocks=False)
        )
        for _ in range(MAF.transforms)
    ]
    model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(MAF.features, trainable=False), layers).to(device)
    return Model(model, model.log_prob, model.sample)


def _slow_densities(device: str) -> dict[str, Build]:
    """Flows whose density is the slow direction."""

    def of_peers(name: str) -> Model:
        return Model(*dict(sampling.slow_peers(MAF, device))[name])

    return _supported({name: partial(of_peers, name) for name in ("Pyro", "normflows")})


def _couplings(device: str) -> dict[str, Build]:
    def of_peers(name: str) -> Model:
        peer = coupling_flows.PEERS[name]()
        coupling_flows.start_apart(peer)
        model = peer.model.to(device)
        return Model(model, partial(peer.log_prob, model))

    return _supported({name: partial(of_peers, name) for name in coupling_flows.PEERS})


def _sbi(context: Tensor, device: str) -> Model:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, RandomPermutation

    features, width, hidden, transforms, *_ = SBI
    layers = []
    for _ in range(transforms):
        layers.append(
            MaskedAffineAutoregressiveTransform(
                features, hidden, context_features=width, num_blocks=2, use_residual_blocks=False, activation=torch.tanh
            )
        )
        layers.append(RandomPermutation(features))
    model = Flow(CompositeTransform(layers), StandardNormal([features])).to(device)
    return Model(model, lambda x: model.log_prob(x, context), lambda n: model.sample(n, context[:1]))
