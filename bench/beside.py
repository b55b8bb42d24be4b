"""Flows of fastgen's with another library's weights, beside that library: densities, steps and samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from fastgen.flows import Flow, MaskedAutoregressiveTransform

from .case import OURS, Case, Setting, relative_error
from .eager import on_reference
from .networks import Sizes, Works, works_of
from .peers.masked import MaskedPeer, same_flow
from .providers import compiled
from .steps import CHECKED, EVALUATION, GRADIENTS, STEP, Candidate, value_and_gradients, whole_model

# By pass, how many times faster than the library and than the library compiled.
Targets = Mapping[str, tuple[float | None, float | None]]
# Features of the widest flow of which more than a few rows are checked: the truth takes D passes.
_WIDE = 64


def density(
    operation: str,
    name: str,
    peer: MaskedPeer,
    sizes: Sizes,
    setting: Setting,
    targets: Targets | None = None,
    modes: Sequence[str] = (EVALUATION, GRADIENTS, STEP),
) -> Iterator[Case]:
    """A library, where it compiles also compiled, beside fastgen's flow with its weights."""
    peer.model.to(setting.device)
    x = torch.randn(sizes.batch, sizes.features, device=setting.device)
    flow = same_flow(peer, sizes.features)
    candidates = {
        OURS: Candidate(list(flow.parameters()), flow.log_prob, x),
        name: candidate(peer, x),
        **_compiled(name, peer, x, setting),
    }
    shape = f"{sizes}, as {name}"
    wanted = {mode: _targets(name, candidates, *both) for mode, both in (targets or {}).items()}
    least, rows = works(flow, sizes.batch), checked(peer, sizes)
    yield from whole_model(operation, shape, candidates, truth(flow), least, wanted, modes=modes, checked=rows)


def samples(operation: str, name: str, peer: MaskedPeer, sizes: Sizes, setting: Setting, target: float | None) -> Case:
    """Samples of a library beside those of fastgen's flow with its weights, checked by what some noise becomes."""
    peer.model.to(setting.device)
    flow = same_flow(peer, sizes.features)
    against = {
        OURS: Sampler(lambda: flow.sample(sizes.batch), lambda z: flow.transform.inverse(z)[0]),
        name: sampler(peer, sizes),
    }
    return drawn(operation, f"{sizes}, as {name}", against, flow, sizes, setting, {} if target is None else {name: target})


class Sampler(NamedTuple):
    """What draws samples, and what some noise becomes."""

    draw: Callable[[], object]
    inverse: Callable[[Tensor], Tensor]


def sampler(peer: MaskedPeer, sizes: Sizes) -> Sampler:
    return Sampler(lambda: peer.sample(peer.model, sizes.batch), partial(peer.inverse, peer.model))


def drawn(
    operation: str,
    shape: str,
    candidates: Mapping[str, Sampler],
    flow: Flow,
    sizes: Sizes,
    setting: Setting,
    targets: Mapping[str, float],
) -> Case:
    """Samples of candidates that compute what `flow` does, each checked by what some noise becomes."""
    noise = torch.randn(min(sizes.batch, CHECKED), sizes.features, device=setting.device)

    @cache
    def expected() -> Tensor:
        return on_reference(copy.deepcopy(flow).double().transform.inverse)(noise.double())[0].detach()

    @torch.no_grad()
    def error(candidate: Sampler) -> float:
        return relative_error([candidate.inverse(noise)], [expected()])

    calls = {who: torch.no_grad()(candidate.draw) for who, candidate in candidates.items()}
    errors = {who: partial(error, candidate) for who, candidate in candidates.items()}
    least = works(flow, sizes.batch).forward
    return Case(operation, "sample", shape, calls, errors, least, targets, device=setting.device)


def candidate(peer: MaskedPeer, x: Tensor) -> Candidate:
    return Candidate(peer.parameters, partial(peer.log_prob, peer.model), x, peer.arranged)


def checked(peer: MaskedPeer, sizes: Sizes) -> int:
    """How many rows are checked."""
    return CHECKED if not peer.slow or sizes.features <= _WIDE else 4


def works(flow: Flow, batch: int) -> Works:
    networks = [module.made.network for module in flow.modules() if isinstance(module, MaskedAutoregressiveTransform)]
    return works_of(networks, batch, sum(p.numel() for p in flow.parameters()))


def _compiled(name: str, peer: MaskedPeer, x: Tensor, setting: Setting) -> dict[str, Candidate]:
    if peer.compilable is None:
        return {}
    found = {}
    for mode in compiled(peer.log_prob, setting):
        own = copy.deepcopy(peer)
        assert own.compilable is not None
        log_prob = compiled(own.compilable(own.model), setting)[mode]
        found[mode.replace("compiled", f"compiled {name}")] = Candidate(own.parameters, log_prob, x, own.arranged)
    return found


def _targets(
    name: str, candidates: Mapping[str, Candidate], eager: float | None, by_compiler: float | None
) -> dict[str, float]:
    wanted = {other: by_compiler for other in candidates if other.startswith("compiled")} | {name: eager}
    return {other: target for other, target in wanted.items() if target is not None}


def truth(flow: Flow) -> Callable[[Tensor], Sequence[Tensor]]:
    """Value and gradients of fastgen's flow in plain PyTorch, float64."""
    exact = copy.deepcopy(flow).double()
    return lambda x: value_and_gradients(list(exact.parameters()), on_reference(exact.log_prob), x)
