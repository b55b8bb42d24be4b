"""Models of other libraries before and after `fastgen.accelerate`: training steps, samples and densities in the slow direction.

Each is built twice from one seed and accelerated once. Work: that of their networks, once forward, and twice backward where
gradients are asked for; of sbi's flow without the layers of its context.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import fastgen
from fastgen.interop import registry

from ..beside import candidate, checked, drawn, sampler, truth, works
from ..case import OURS, Case, Setting, Work, relative_error
from ..networks import Sizes, dense_works, works_of
from ..peers import LIBRARIES, installed
from ..peers.conditioned import ConditionedPeer
from ..peers.coupled import CoupledPeer, same_flow, start_apart, truth_of
from ..peers.masked import MaskedPeer
from ..peers.masked import same_flow as same_masked_flow
from ..steps import CHECKED, GRADIENTS, STEP, Candidate, value_and_gradients, whole_model
from .realnvp import BATCH, FEATURES, TRANSFORMS, shape_of

OPERATION = "accelerate"
SMALL, MAF = Sizes(64, 8, 64), Sizes(256, 64, 512)
STEP_TARGET, SLOW_TARGET, COUPLING_TARGET = 1.6, 50.0, 1.1
# As sbi builds its flows.
SBI, SBI_CONTEXT, SBI_SAMPLES = Sizes(50, 5, 50), 10, 10_000
SBI_STEP_TARGET, SBI_SAMPLE_TARGET = 1.5, 10.0
LAYERS, HALF_A_SECOND = 50, "half a second"

Peer = TypeVar("Peer", MaskedPeer, CoupledPeer, ConditionedPeer)


def cases(setting: Setting) -> Iterator[Case]:
    for case in _cases(setting):
        # The targets are those of the whole sizes.
        yield replace(case, targets={}) if setting.quick else case


def _cases(setting: Setting) -> Iterator[Case]:
    sizes = SMALL if setting.quick else MAF
    for name, build in _supported("maf"):
        yield from _fast(name, *_pair(partial(build, sizes), setting), sizes, setting)
    for kind in ("maf_as_shipped", "iaf"):
        for name, build in _supported(kind):
            yield from _slow(name, *_pair(partial(build, sizes), setting), sizes, setting)
    batch, transforms = (64, 2) if setting.quick else (BATCH, TRANSFORMS)
    for name, build in _supported("realnvp"):
        x = torch.randn(batch, FEATURES, device=setting.device)
        yield from _coupled(name, *_pair(partial(_apart, build, transforms), setting), x, transforms)
    for name, build in _supported("sbi"):
        pair = _pair(partial(build, SBI, SBI_CONTEXT), setting)
        context = torch.randn(SBI.batch, SBI_CONTEXT, device=setting.device)
        yield _conditioned_samples(name, *pair, context, 100 if setting.quick else SBI_SAMPLES)
        yield from _conditioned_step(name, *pair, context)
    if not setting.quick:
        yield from _fifty(setting)


def _supported(kind: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The libraries that are installed, have such a flow, and whose modules `accelerate` knows."""
    return ((name, build) for name, build in installed(kind) if LIBRARIES[name][0] in registry.LIBRARIES)


def _pair(build: Callable[[], Peer], setting: Setting) -> tuple[Peer, Peer]:
    """The same model twice: accelerated, and as it was."""
    theirs = _from_seed(build, setting)
    ours = copy.deepcopy(theirs)
    fastgen.accelerate(ours.model)
    return ours, theirs


def _from_seed(build: Callable[[], Peer], setting: Setting) -> Peer:
    torch.manual_seed(0)
    peer = build()
    peer.model.to(setting.device)
    return peer


def _apart(build: Callable[..., CoupledPeer], transforms: int) -> CoupledPeer:
    peer = build(FEATURES, transforms)
    start_apart(peer.networks)
    return peer


def _fast(name: str, ours: MaskedPeer, theirs: MaskedPeer, sizes: Sizes, setting: Setting) -> Iterator[Case]:
    """Of a flow whose samples are the slow direction; the step last, which moves the weights."""
    flow, against = same_masked_flow(theirs, sizes.features), {OURS: sampler(ours, sizes), name: sampler(theirs, sizes)}
    yield drawn(OPERATION, f"MAF {sizes}, {name}", against, flow, sizes, setting, {name: SLOW_TARGET})
    yield from _density(name, "MAF", ours, theirs, sizes, setting, STEP, STEP_TARGET)


def _slow(name: str, ours: MaskedPeer, theirs: MaskedPeer, sizes: Sizes, setting: Setting) -> Iterator[Case]:
    """Of a flow whose density is the slow direction."""
    yield from _density(name, "MAF, networks of noise,", ours, theirs, sizes, setting, GRADIENTS, SLOW_TARGET)


def _density(
    name: str, what: str, ours: MaskedPeer, theirs: MaskedPeer, sizes: Sizes, setting: Setting, mode: str, target: float
) -> Iterator[Case]:
    x = torch.randn(sizes.batch, sizes.features, device=setting.device)
    flow, against = same_masked_flow(theirs, sizes.features), {OURS: candidate(ours, x), name: candidate(theirs, x)}
    least, targets, rows = works(flow, sizes.batch), {mode: {name: target}}, checked(theirs, sizes)
    yield from whole_model(
        OPERATION, f"{what} {sizes}, {name}", against, truth(flow), least, targets, modes=[mode], checked=rows
    )


def _coupled(name: str, ours: CoupledPeer, theirs: CoupledPeer, x: Tensor, transforms: int) -> Iterator[Case]:
    """Of RealNVP a step without the optimiser."""
    against = {OURS: ours.candidate(x), name: theirs.candidate(x)}
    least = dense_works(same_flow(theirs, FEATURES, transforms, x.device.type), len(x), FEATURES)
    shape, targets = f"RealNVP {shape_of(len(x), transforms)}, {name}", {GRADIENTS: {name: COUPLING_TARGET}}
    exact = truth_of(theirs)

    def expected(seen: Tensor) -> list[Tensor]:
        # Of data as the library wants them: halves exchanged twice are where they were.
        return exact(theirs.data(seen))

    yield from whole_model(OPERATION, shape, against, expected, least, targets, modes=[GRADIENTS])


def _conditioned_step(name: str, ours: ConditionedPeer, theirs: ConditionedPeer, context: Tensor) -> Iterator[Case]:
    x = torch.randn(len(context), SBI.features, device=context.device)

    def log_prob(peer: ConditionedPeer, x: Tensor) -> Tensor:
        return peer.log_prob(peer.model, x, context[: len(x)].to(x.dtype))

    def of(peer: ConditionedPeer) -> Candidate:
        return Candidate(list(peer.model.parameters()), partial(log_prob, peer), x)

    exact = copy.deepcopy(theirs)
    exact.model.double()
    expected = partial(value_and_gradients, list(exact.model.parameters()), partial(log_prob, exact))
    least = works_of(theirs.networks, len(x), sum(p.numel() for p in theirs.model.parameters()))
    shape, against = f"{_sbi_shape(len(x))}, {name}", {OURS: of(ours), name: of(theirs)}
    yield from whole_model(OPERATION, shape, against, expected, least, {STEP: {name: SBI_STEP_TARGET}}, modes=[STEP])


def _conditioned_samples(name: str, ours: ConditionedPeer, theirs: ConditionedPeer, context: Tensor, n: int) -> Case:
    noise, given = torch.randn(CHECKED, SBI.features, device=context.device), context[:CHECKED]

    @cache
    def expected() -> Tensor:
        return theirs.inverse(copy.deepcopy(theirs.model).double(), noise.double(), given.double())

    @torch.no_grad()
    def error(peer: ConditionedPeer) -> float:
        return relative_error([peer.inverse(peer.model, noise, given)], [expected()])

    def draw(peer: ConditionedPeer) -> Callable[[], object]:
        return torch.no_grad()(partial(peer.sample, peer.model, n, context[:1]))

    peers, parameters = {OURS: ours, name: theirs}, sum(p.numel() for p in theirs.model.parameters())
    calls, errors = (
        {who: draw(peer) for who, peer in peers.items()},
        {who: partial(error, peer) for who, peer in peers.items()},
    )
    shape, least = f"{_sbi_shape(n)}, {name}", works_of(theirs.networks, n, parameters).forward
    return Case(OPERATION, "sample", shape, calls, errors, least, {name: SBI_SAMPLE_TARGET}, device=context.device.type)


def _sbi_shape(rows: int) -> str:
    return f"sbi's MAF {rows} x {SBI.features}, context {SBI_CONTEXT}, {SBI.transforms} x hidden {SBI.hidden} x 3"


def _fifty(setting: Setting) -> Iterator[Case]:
    """A deep model of the first library accelerated and restored, beside the half second that it may take."""
    for _, build in list(_supported("maf"))[:1]:
        peers = [_from_seed(partial(build, MAF), setting) for _ in range(LAYERS // MAF.transforms)]
        model, x = nn.ModuleList(peer.model for peer in peers), torch.randn(CHECKED, MAF.features, device=setting.device)

        def run(model: nn.Module = model) -> None:
            fastgen.restore(fastgen.accelerate(model))

        def error(peers: list[Any] = peers, x: Tensor = x) -> float:
            """Of the last model's density while it is accelerated."""
            untouched = peers[-1].log_prob(peers[-1].model, x)
            fastgen.accelerate(peers[-1].model)
            found = peers[-1].log_prob(peers[-1].model, x)
            fastgen.restore(peers[-1].model)
            return relative_error([found], [untouched])

        calls: dict[str, Callable[[], object]] = {OURS: run, HALF_A_SECOND: partial(time.sleep, 0.5)}
        # Sleep has no results.
        errors = {OURS: error, HALF_A_SECOND: lambda: 0.0}
        shape = f"{LAYERS} layers of {MAF.features}, hidden {MAF.hidden} x 2"
        targets = {HALF_A_SECOND: 1.0}
        yield Case(OPERATION, "accelerate and restore", shape, calls, errors, Work(0, 1), targets, device=setting.device)
