"""The log-probabilities of decoders against the few lines of PyTorch that define them.

Bytes forward: every input read, one number per row written. Backward reads the inputs and the incoming gradient and writes a
gradient for each input but the outcomes. There is no matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastgen import ops, reference

from ..case import OURS, Case, Setting, Work, leaves, passes
from ..precision import word
from ..providers import compiled

CATEGORIES = 16


def cases(setting: Setting) -> Iterator[Case]:
    for batch, features in ((256, 64),) if setting.quick else ((512, 784), (16384, 784)):
        shape = f"{batch} x {features}"
        x = torch.rand(batch, features, device=setting.device)
        a, b = leaves(*(torch.randn_like(x) for _ in range(2)))
        grey, category = (255 * x).round() / 255, torch.randint_like(x, 4, dtype=torch.int64) % CATEGORIES
        pixels = word() * batch * features
        yield from _passes("bernoulli_log_prob", shape, x.round(), [a], Work(0, 2 * pixels), Work(0, 3 * pixels), setting)
        logistic = leaves(a.sigmoid(), b - 2)
        yield from _passes(
            "discretized_logistic_log_prob", shape, grey, logistic, Work(0, 3 * pixels), Work(0, 5 * pixels), setting
        )
        logits = leaves(torch.randn(batch, features, CATEGORIES, device=setting.device))
        work = Work(0, (CATEGORIES + 2) * pixels), Work(0, (2 * CATEGORIES + 2) * pixels)
        yield from _passes("categorical_log_prob", f"{shape} x {CATEGORIES}", category, logits, *work, setting)


def _passes(
    name: str, shape: str, x: Tensor, inputs: list[Tensor], forward: Work, backward: Work, setting: Setting
) -> Iterator[Case]:
    operation, definition = (_given(getattr(module, name), x) for module in (ops, reference))
    candidates = {OURS: operation, "PyTorch": definition, **compiled(definition, setting)}
    return passes(name, shape, candidates, definition, inputs, (forward, backward))


def _given(function: Callable[..., Tensor], x: Tensor) -> Callable[..., Tensor]:
    def run(*params: Tensor) -> Tensor:
        return function(x.to(params[0].dtype) if x.is_floating_point() else x, *params)

    return run
