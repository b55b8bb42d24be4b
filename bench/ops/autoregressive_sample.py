"""autoregressive_sample, given its random numbers, against one pass of the same network and against D of them.

Flops and bytes: those of one masked pass of the network; the random numbers are read besides, one feature's each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fastgen import ops, reference
from fastgen.models import AutoregressiveDensity, BernoulliMADE, CategoricalMADE, MixtureMADE
from fastgen.nn import MADE
from fastgen.reference import ConditionalSampler

from ..case import OURS, Case, Setting, relative_error, without_gradients
from ..plain import mask_of, masked_chain, parameters_of
from . import masked_mlp

OPERATION = "autoregressive_sample"
DENSE, PASS, LOOP = "one dense pass", "one of D passes of W * M", "D fused passes"
HIDDEN = 500
# The density, its features and options, rows.
SIZES: tuple[tuple[Callable[..., AutoregressiveDensity], int, dict[str, int], int], ...] = (
    (BernoulliMADE, 112, {}, 256),
    (BernoulliMADE, 112, {}, 1),
    (CategoricalMADE, 64, {"categories": 17}, 256),
    (MixtureMADE, 64, {"components": 10}, 256),
)


def cases(setting: Setting) -> Iterator[Case]:
    for kind, features, options, batch in SIZES[:1] if setting.quick else SIZES:
        model = kind(features, hidden_features=(HIDDEN, HIDDEN), **options)
        yield _sample(model.to(setting.device), batch, setting.device)


def _sample(model: AutoregressiveDensity, batch: int, device: str) -> Case:
    made, sampler = model.made, model.conditional.sampler
    params = [p.detach() for p in parameters_of(made)]
    network, plan = made.masked(0, params[0].device)
    noise = model.conditional.noise((batch, model.features), torch.get_default_dtype(), params[0].device, None)
    columns = torch.randn(batch, network.features, device=device)
    masks = [mask_of(layer).to(columns) for layer in network.layers]

    def loop() -> Tensor:
        for _ in range(model.features):
            outputs = ops.masked_mlp(columns, network, params, plan=plan)
        return outputs

    candidates: dict[str, Callable[[], object]] = {
        OURS: lambda: ops.autoregressive_sample(noise, network, params, sampler=sampler, plan=plan),
        DENSE: lambda: masked_chain(columns, network, params, [None] * len(masks)),
        PASS: lambda: masked_chain(columns, network, params, masks),
        LOOP: loop,
    }
    calls = {name: without_gradients(run, []) for name, run in candidates.items()}
    work, _ = masked_mlp.work(network, batch)
    shape = f"{sampler.kind}, {batch} x {model.features}, hidden {HIDDEN} x 2"

    def error_of_a_pass(run: Callable[[], object], masks: Sequence[Tensor | None]) -> float:
        found = run()
        assert isinstance(found, Tensor)
        return relative_error([found], [masked_chain(columns.double(), network, [p.double() for p in params], masks)])

    errors = {
        OURS: lambda: _error(sampler, made, noise),
        DENSE: lambda: error_of_a_pass(candidates[DENSE], [None] * len(masks)),
        PASS: lambda: error_of_a_pass(candidates[PASS], masks),
        LOOP: lambda: error_of_a_pass(candidates[LOOP], masks),
    }
    return Case(OPERATION, "forward", shape, calls, errors, work, device=device)


def _error(sampler: ConditionalSampler, made: MADE, noise: Tensor) -> float:
    """Of the first rows against the loop over features, both in float64: rounding can tip a choice."""
    params, rows = [p.detach().double() for p in parameters_of(made)], noise[:32].double()
    found = ops.autoregressive_sample(rows, made.network, params, sampler=sampler)
    return relative_error([found], [reference.autoregressive_sample(rows, made.network, params, sampler=sampler)])
