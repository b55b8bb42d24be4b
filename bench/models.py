"""Whole models: a training step and a density evaluation of a masked autoregressive flow.

Work: that of its networks, see ops/masked_mlp; a step also reads weights, gradients and Adam's two moments and writes
weights and moments.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgen import flows
from fastgen.nn import MADE

from .case import OURS, Case, Setting, Work, relative_error
from .ops import masked_mlp
from .plain import PlainMAF, parameters_of
from .steps import evaluation, training_step, value_and_gradients

STEP_TARGETS = {"W * M, Adam": 2.0, "compiled W * M, fused Adam": 1.6}
EVALUATION_TARGETS = {"W * M": 2.6}


class Sizes(NamedTuple):
    batch: int
    features: int
    hidden: int
    transforms: int = 5

    def __str__(self) -> str:
        return f"{self.batch} x {self.features}, {self.transforms} x hidden {self.hidden} x 2"


def cases(setting: Setting) -> Iterator[Case]:
    if setting.device == "cuda":
        yield from _maf(Sizes(4096, 64, 512), setting, {}, {})
        return
    yield from _maf(Sizes(256, 64, 512), setting, STEP_TARGETS, EVALUATION_TARGETS)
    if not setting.quick:
        yield from _maf(Sizes(64, 8, 64), setting, {}, {})


def _maf(
    sizes: Sizes, setting: Setting, step_targets: dict[str, float], evaluation_targets: dict[str, float]
) -> Iterator[Case]:
    device = setting.device
    x = torch.randn(sizes.batch, sizes.features, device=device)
    hidden = (sizes.hidden, sizes.hidden)
    ours = flows.MAF(sizes.features, transforms=sizes.transforms, hidden_features=hidden).to(device)
    plain, eager, compiled = PlainMAF(ours), PlainMAF(ours), PlainMAF(ours)
    compiled_log_prob = torch.compile(compiled.log_prob)
    others = {} if setting.quick else peers(sizes, device)

    def error() -> float:
        truth = PlainMAF(ours).double()
        found = value_and_gradients([p for made in _networks(ours) for p in parameters_of(made)], ours.log_prob, x)
        return relative_error(found, value_and_gradients(list(truth.parameters()), truth.log_prob, x.double()))

    steps = {
        OURS: training_step(ours, ours.log_prob, x, fused=True),
        "W * M, Adam": training_step(eager, eager.log_prob, x),
        "compiled W * M, fused Adam": training_step(compiled, compiled_log_prob, x, fused=True),
        **{f"{name}, fused Adam": training_step(model, log_prob, x, fused=True) for name, (model, log_prob) in others.items()},
    }
    evaluations: dict[str, Callable[[Tensor], Tensor]] = {
        OURS: ours.log_prob,
        "W * M": plain.log_prob,
        "compiled W * M": compiled_log_prob,
    }
    evaluations |= {name: log_prob for name, (_, log_prob) in others.items()}
    yield Case("MAF", "step", str(sizes), steps, error, step_work(ours, sizes.batch), step_targets, device=device)
    calls = {name: evaluation(log_prob, x) for name, log_prob in evaluations.items()}
    forward = forward_work(ours, sizes.batch)
    yield Case("MAF", "log_prob, no gradients", str(sizes), calls, error, forward, evaluation_targets, device=device)


def forward_work(flow: nn.Module, batch: int) -> Work:
    """That of one pass of every network."""
    return _work(flow, batch)[0]


def step_work(flow: nn.Module, batch: int, steps: int = 1) -> Work:
    """That of training steps on `batch` rows each."""
    forward, backward = _work(flow, batch)
    one = forward + backward + Work(0, 28 * sum(p.numel() for p in flow.parameters()))
    return Work(steps * one.flops, steps * one.bytes)


def _work(flow: nn.Module, batch: int) -> tuple[Work, Work]:
    passes = [masked_mlp.work(made.network, batch) for made in _networks(flow)]
    forward, backward = zip(*passes, strict=True)
    return sum(forward, Work(0, 0)), sum(backward, Work(0, 0))


def _networks(flow: nn.Module) -> list[MADE]:
    return [module for module in flow.modules() if isinstance(module, MADE)]


def peers(sizes: Sizes, device: str) -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """Masked autoregressive flows of the same size from other libraries, where they are installed."""
    hidden = [sizes.hidden] * 2
    found: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {}
    if importlib.util.find_spec("nflows"):
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

        layers = []
        for _ in range(sizes.transforms):
            made = MaskedAffineAutoregressiveTransform(sizes.features, sizes.hidden, num_blocks=1, use_residual_blocks=False)
            layers += [ReversePermutation(sizes.features), made]
        model = Flow(CompositeTransform(layers), StandardNormal([sizes.features])).to(device)
        found["nflows"] = model, model.log_prob
    if importlib.util.find_spec("zuko"):
        from zuko.flows import MAF

        zuko = MAF(sizes.features, transforms=sizes.transforms, hidden_features=hidden).to(device)
        found["zuko"] = zuko, lambda x: zuko().log_prob(x)
    return found
